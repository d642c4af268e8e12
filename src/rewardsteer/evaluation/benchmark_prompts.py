"""The prompts of benchmarks, for ``rewardsteer generate``."""

from typing import Any

from rewardsteer.errors import DataError
from rewardsteer.evaluation.benchmarks import BENCHMARKS, load_problems
from rewardsteer.evaluation.reward_benchmarks import REWARD_BENCHMARKS

NAMES = (*BENCHMARKS.names(), *REWARD_BENCHMARKS.names())


def benchmark_prompts(name: str, path: str | None) -> list[dict[str, Any]]:
    """The distinct prompts of a benchmark, each with the id of the first row that has it.

    Args:
        name: a maths benchmark (`rewardsteer.evaluation.benchmarks`) or a benchmark of reward
            models (`rewardsteer.evaluation.reward_benchmarks`).
        path: the published file; None: the hub or its cache, for benchmarks of reward models.

    Raises:
        DataError: no such data, or a maths benchmark without a file.
    """
    from rewardsteer.data.prompts import different
    from rewardsteer.data.render import plain_prompt
    from rewardsteer.evaluation.reward_benchmarks.loading import load_benchmark

    if name in BENCHMARKS.names():
        if path is None:
            raise DataError(f"Give the published file of {name} as path= (--path).")
        problems = load_problems(name, path)
        return different({"id": one.id, "prompt": one.question} for one in problems)
    return different(
        {"id": item.id, "prompt": plain_prompt(item.prompt)}
        for item in load_benchmark(name, path)[1]
    )
