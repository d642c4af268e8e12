"""Quality of a guide without generation: its agreement with a slower teacher at each position.

Both guides define a distribution over the policy's candidates by log p + w · rewards. All figures
are over positions of the policy's own samples; intervals are over prompts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewardsteer.data.digests import vocabulary_hash
from rewardsteer.distillation.records import read_records, read_source, split_records
from rewardsteer.distillation.teacher import Asked, TokenTeacher
from rewardsteer.errors import MismatchError
from rewardsteer.evaluation.statistics import ratio, share
from rewardsteer.models.compatibility import reads_tokens, shown_name
from rewardsteer.objectives.distillation import divergence, guided_law

Figures = dict[str, dict[str, float]]


def evaluate_guide(
    scorer: Any, folder: Path, *, weight: float = 1.0, test_fraction: float | None = 0.1,
    seed: int = 0, batch_size: int = 16,
) -> Figures:
    """Compare a reward model with the teacher of distillation records.

    Args:
        scorer: a reward model with the policy's tokenizer. One with a vocabulary head scores all
            candidates at once, any other one each candidate by itself.
        folder: records, see `rewardsteer.distillation.records`.
        weight: guidance weight of both guides.
        test_fraction, seed: of the split in distillation, whose held-out prompts are used; None:
            all records.
        batch_size: responses scored together.

    Returns:
        by name of the figure (see `figures`) its ``value``, the ends ``low`` and ``high`` of its
        95 % interval, and the ``count`` of positions.

    Raises:
        MismatchError: another tokenizer than the policy's.
        DataError: no such records.
    """
    source = read_source(folder)
    if not reads_tokens(scorer) or vocabulary_hash(scorer.tokenizer) != source.tokenizer:
        raise MismatchError(
            f"Guides are compared on the policy's tokens, and {shown_name(scorer)} has another "
            "tokenizer than the policy of the records; give a reward model with the policy's."
        )
    rows = read_records(folder)
    if test_fraction is not None:
        rows = split_records(rows, test_fraction, seed)[1]
    # As in guidance, the end of a response is a token like any other.
    student, found, groups = TokenTeacher(scorer, ()), [], []
    columns: list[tuple[Any, ...]] = []
    for begin in range(0, len(rows), batch_size):
        some = [rows[index] for index in range(begin, min(begin + batch_size, len(rows)))]
        asked = [
            Asked("", row["prompt_ids"], row["chosen_ids"], row["candidate_lengths"],
                  np.array(row["tokens"]))
            for row in some
        ]
        found += student.rewards(asked)
        groups += [row["group"] for row in some for _ in row["candidate_lengths"]]
        columns += [(np.array(row["log_policy"]), np.array(row["teacher"])) for row in some]
    log_policy, teacher = (np.concatenate(part) for part in zip(*columns, strict=True))
    return figures(log_policy, teacher, np.concatenate(found), groups, weight)


def figures(
    log_policy: np.ndarray, teacher: np.ndarray, student: np.ndarray, groups: Sequence[str],
    weight: float,
) -> Figures:
    """Figures of a student's guidance, from ``[N, K]`` numbers of candidates.

    ``guidance_lost``: KL(teacher ‖ student) / KL(teacher ‖ policy) of guided distributions, each
    summed over positions: 0 for the teacher, 1 for the policy alone, more for a misleading guide.
    ``best_agrees``: share of positions where both guides have the same best candidate;
    ``rank_correlation``: Kendall's τ-b of the rewards, the mean over positions where it is defined;
    ``changed_by_teacher`` and ``changed_by_student``: share of positions where the guide's best
    candidate is not the policy's.

    Args:
        log_policy: log-probabilities.
        teacher, student: rewards; candidates with NaN in either are left out.
        groups: the prompt of each position.
        weight: w.
    """
    known = ~(np.isnan(teacher) | np.isnan(student))
    used = known.any(axis=1)
    known, groups = known[used], [one for one, use in zip(groups, used, strict=True) if use]
    log_p = np.where(known, log_policy[used], -np.inf)
    aims, reached = (np.where(known, one[used], 0.0) for one in (teacher, student))
    base = torch.from_numpy(log_p)
    law, own = (guided_law(base, torch.from_numpy(one), weight) for one in (aims, reached))
    lost = divergence(law, own).numpy()
    guidance = divergence(law, base.log_softmax(dim=-1)).numpy()
    best = [(log_p + weight * one).argmax(axis=1) for one in (np.zeros_like(aims), aims, reached)]
    ranks = rank_correlation(aims, reached, known)
    defined = ~np.isnan(ranks)
    some = [one for one, use in zip(groups, defined, strict=True) if use]
    found = {
        "guidance_lost": ratio(lost, guidance, groups),
        "best_agrees": share(best[1] == best[2], groups),
        "rank_correlation": ratio(ranks[defined], np.ones(int(defined.sum())), some),
        "changed_by_teacher": share(best[1] != best[0], groups),
        "changed_by_student": share(best[2] != best[0], groups),
    }
    return {
        name: {"value": one.value, **one.ends(), "count": float(len(groups))}
        for name, one in found.items()
    }


def rank_correlation(first: np.ndarray, second: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Kendall's τ-b ``[N]`` of each row of ``[N, K]`` values, over its ``known`` entries; NaN where
    all values of one side are equal."""
    pairs = known[:, :, None] & known[:, None, :]
    signs = [np.sign(one[:, :, None] - one[:, None, :]) * pairs for one in (first, second)]
    agree = (signs[0] * signs[1]).sum(axis=(1, 2))
    sizes = [np.abs(one).sum(axis=(1, 2)) for one in signs]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(agree / np.sqrt(sizes[0] * sizes[1]))
