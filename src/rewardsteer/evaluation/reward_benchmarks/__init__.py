"""Benchmarks of reward models by name, with their published rules and formulas.

A benchmark is a class derived from `RewardBenchmark` in a file of its own and a row of
`REWARD_BENCHMARKS`; one outside this package is named ``package.module:Class``.
"""

from rewardsteer.registry import Registry

_PLACE = "rewardsteer.evaluation.reward_benchmarks"
REWARD_BENCHMARKS = Registry(
    "benchmark of reward models",
    {
        "rewardbench": f"{_PLACE}.rewardbench:RewardBench",
        "rewardbench2": f"{_PLACE}.rewardbench2:RewardBench2",
        "rm-bench": f"{_PLACE}.rm_bench:RmBench",
        "judgebench": f"{_PLACE}.judgebench:JudgeBench",
        "rewardmath": f"{_PLACE}.rewardmath:RewardMath",
        "ppe": f"{_PLACE}.ppe:Ppe",
        "processbench": f"{_PLACE}.processbench:ProcessBench",
        "prmbench": f"{_PLACE}.prmbench:PrmBench",
    },
    classes=[f"{_PLACE}.base:RewardBenchmark"],
)
