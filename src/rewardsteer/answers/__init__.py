"""Final answers of worked solutions: found in the text, compared, and turned into voting keys."""

from rewardsteer.answers.equality import canonical_answer, same_answer
from rewardsteer.answers.extraction import extract_answer, last_boxed

__all__ = ["canonical_answer", "extract_answer", "last_boxed", "same_answer"]
