"""GSM-Hard: ``{input, target}``."""

from rewardsteer.evaluation.benchmarks.base import Format, fields

GSM_HARD = Format(fields("input", "target"))
