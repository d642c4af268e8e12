"""Figures of a method from its records."""

from collections.abc import Sequence

import numpy as np

from rewardsteer.evaluation.diversity import distinct_n, pairwise_rouge_l
from rewardsteer.evaluation.statistics import mean, paired_difference, share, standard_error
from rewardsteer.records import Cost, EvalRecord, Generation


def summarise(records: Sequence[EvalRecord], baseline: Sequence[EvalRecord]) -> dict[str, float]:
    """Figures of one method; ``*_per_token`` are ratios of sums over all generations."""
    figures: dict[str, float] = {"count": len(records)}
    for name in records[0].metrics:
        values = [record.metrics[name] for record in records]
        binary = set(values) <= {0.0, 1.0}
        difference = paired_difference(values, [record.metrics[name] for record in baseline])
        figures |= {
            **(share(values) if binary else mean(values)).figures(name),
            f"{name}_stderr": standard_error(values),
            **difference.figures(f"{name}_gain"),
        }
    for name in records[0].extra:
        figures[name] = float(np.mean([record.extra[name] for record in records]))
    texts = [_words(record.generation) for record in records]
    figures |= {f"distinct_{n}": distinct_n(texts, n) for n in (1, 2, 3)}
    figures["rouge_l"] = pairwise_rouge_l(texts)
    total = sum((record.generation.cost for record in records), Cost())
    tokens = max(total.new_tokens, 1)
    figures["length"] = total.new_tokens / len(records)
    for name in ("lm_calls", "rm_calls", "lm_forwards", "rm_forwards", "lm_tokens", "rm_tokens"):
        figures[f"{name}_per_token"] = getattr(total, name) / tokens
    figures["seconds_per_token"] = total.seconds / tokens
    figures["seconds_per_response"] = total.seconds / len(records)
    # JSON has no NaN; undefined figures are left out.
    return {name: value for name, value in figures.items() if not np.isnan(value)}


def _words(generation: Generation) -> list[str]:
    """The words of a response; its tokens where the text has no spaces."""
    words = generation.completion.split()
    return words if len(words) > 1 else [str(token) for token in generation.token_ids]
