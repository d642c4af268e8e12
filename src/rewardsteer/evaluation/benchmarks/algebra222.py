"""Algebra222: ``{question, final_answer}``."""

from rewardsteer.evaluation.benchmarks.base import Format, fields

ALGEBRA222 = Format(fields("question", "final_answer"))
