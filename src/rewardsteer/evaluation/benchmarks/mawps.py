"""MAWPS: ``{input, target}``."""

from rewardsteer.evaluation.benchmarks.base import Format, fields

MAWPS = Format(fields("input", "target"))
