"""Figures with 95 % intervals, and tests for comparisons of several figures.

Every interval is over clusters (prompts, questions, conversations): rows of one cluster are alike.
"""

from rewardsteer.evaluation.statistics.areas import (
    auroc_difference,
    auroc_interval,
    auroc_within_interval,
)
from rewardsteer.evaluation.statistics.comparisons import Gain, gains, holm
from rewardsteer.evaluation.statistics.correlations import correlation_interval
from rewardsteer.evaluation.statistics.intervals import (
    FEWEST,
    Interval,
    difference_p_value,
    mean,
    over,
    paired_difference,
    proportion,
    ratio,
    share,
    standard_error,
    student_quantile,
    student_tail,
    wins,
)
from rewardsteer.evaluation.statistics.seeds import SeedFigure, mean_of_runs, over_runs, two_level
from rewardsteer.objectives.agreement import auroc

__all__ = [
    "FEWEST",
    "Gain",
    "Interval",
    "SeedFigure",
    "auroc",
    "auroc_difference",
    "auroc_interval",
    "auroc_within_interval",
    "correlation_interval",
    "difference_p_value",
    "gains",
    "holm",
    "mean",
    "mean_of_runs",
    "over",
    "over_runs",
    "paired_difference",
    "proportion",
    "ratio",
    "share",
    "standard_error",
    "student_quantile",
    "student_tail",
    "two_level",
    "wins",
]
