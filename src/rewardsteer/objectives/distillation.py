"""Distillation of a guide: a vocabulary head learns a teacher's rewards of the policy's candidates.

Guidance is used through the distribution that tokens are drawn from, so the first term compares
guided distributions: an error on a token that the policy never generates costs nothing. The other
terms keep the differences between rewards, their level, and, for tokens without a reward of the
teacher, the candidates' mean.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rewardsteer.distributed import global_mean
from rewardsteer.objectives.base import Objective, ObjectiveResult
from rewardsteer.objectives.numbers import check_number
from rewardsteer.tensors import Candidates, PairBatch, RewardOutput

# Multiples of the weight of guidance: a head should also work at somewhat other weights.
_SCALES = (0.5, 1.0, 2.0)


def guided_law(log_policy: Tensor, rewards: Tensor, weight: float) -> Tensor:
    """Log-probabilities ``[..., K]`` of guidance on K candidates.

    Args:
        log_policy: ``[..., K]``; −∞ leaves a candidate out.
        rewards: ``[..., K]``, finite.
        weight: in logits per reward unit.
    """
    return (log_policy + weight * rewards).log_softmax(dim=-1)


def divergence(law: Tensor, other: Tensor) -> Tensor:
    """KL(law ‖ other) ``[...]`` in nats of log-probabilities ``[..., K]``."""
    terms = law.exp() * (law - other)
    return terms.masked_fill(law == -torch.inf, 0.0).sum(dim=-1)


def distillation(
    output: RewardOutput, batch: PairBatch, *, weights: Sequence[float], law: float = 1.0,
    differences: float = 0.1, level: float = 0.1, unseen: float = 0.01,
) -> ObjectiveResult:
    """law · mean_w KL(softmax(log p + w·u) ‖ softmax(log p + w·q)) + differences · mean((q − q̄) −
    (u − ū))² + level · (q(y) − u(y))² + unseen · mean((q(v) − q̄)²) with the teacher's rewards u and
    the head's q of a prefix's candidates, y the token that the text goes on with and v random
    tokens; the mean over the prefixes of all processes.

    Args:
        output: needs ``candidate_rewards``.
        batch: ``candidates`` of the marked prefixes. Candidates that the teacher does not know are
            left out.
        weights: w.
        law, differences, level, unseen: of the terms.
    """
    rewards, found = output.candidate_rewards, batch.candidates
    assert rewards is not None, "named in `needs`"
    assert found is not None, "rows with candidates"
    count = found.tokens.shape[1]
    student, others = rewards[:, :count], rewards[:, count:]
    log_policy, teacher, known = known_candidates(found)
    teacher, log_policy = teacher.to(student.dtype), log_policy.to(student.dtype)
    student = student.where(known, 0.0)
    loss = torch.zeros(len(student), dtype=student.dtype, device=student.device)
    for weight in weights:
        aim, reached = (guided_law(log_policy, one, weight) for one in (teacher, student))
        loss = loss + law / len(weights) * divergence(aim, reached)
    share = known / known.sum(dim=1, keepdim=True).clamp(min=1)
    mean = (student * share).sum(dim=1, keepdim=True)
    apart = (student - mean) - (teacher - (teacher * share).sum(dim=1, keepdim=True))
    loss = loss + differences * (apart.square() * share).sum(dim=1)
    drawn = found.drawn[:, None]
    off = (student - teacher).gather(1, drawn).squeeze(1)
    loss = loss + level * off.square()
    if others.shape[1]:
        loss = loss + unseen * (others - mean.detach()).square().mean(dim=1)
    # Prefixes differ in number from process to process; each counts the same.
    total = global_mean(loss.sum(), batch.prefix_mask.sum())
    if not len(student):
        return ObjectiveResult(total, {})
    weight = weights[len(weights) // 2]
    lost, guidance = _divergences(found, student.detach(), weight)
    return ObjectiveResult(total, {
        "guidance_lost": lost.sum() / guidance.sum().clamp(min=1e-9),
        "best_agrees": best_agrees(found, student.detach(), weight).mean(),
        "level_error": off.detach().abs().mean(),
    })


def known_candidates(found: Candidates) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities ``[N, K]`` with −∞, teacher's rewards with 0 at candidates that it does not
    know, and which it knows (bool). A prefix of which it knows none keeps the probabilities, so
    that guidance by rewards of 0 is the policy."""
    known = ~found.teacher.isnan()
    none = ~known.any(dim=1, keepdim=True)
    log_policy = found.log_policy.masked_fill(~known & ~none, -torch.inf)
    return log_policy, found.teacher.nan_to_num(0.0), known


def _divergences(found: Candidates, student: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """KL(teacher's law ‖ student's) and KL(teacher's law ‖ policy) ``[N]``."""
    log_policy, teacher, known = known_candidates(found)
    aim = guided_law(log_policy, teacher, weight)
    reached = guided_law(log_policy, student.where(known, 0.0), weight)
    return divergence(aim, reached), divergence(aim, log_policy.log_softmax(dim=-1))


def best_agrees(found: Candidates, student: Tensor, weight: float) -> Tensor:
    """Whether teacher's and student's guidance have the same best candidate ``[N]``, 0 or 1."""
    log_policy, teacher, known = known_candidates(found)
    student = student.where(known, 0.0)
    best = [(log_policy + weight * one).argmax(dim=1) for one in (teacher, student)]
    return (best[0] == best[1]).float()


def build(
    weight: float = 1.0, law: float = 1.0, differences: float = 0.1, level: float = 0.1,
    unseen: float = 0.01,
) -> Objective:
    """The objective with its options bound.

    Args:
        weight: of the guidance to be; distributions are compared at half, one and two times it.
        law, differences, level, unseen: of the terms, see `distillation`.

    Raises:
        ConfigError: an option is not of its type or range.
    """
    options = {"law": law, "differences": differences, "level": level, "unseen": unseen}
    for name, value in options.items():
        options[name] = check_number("distillation", name, value)
    weight = check_number("distillation", "weight", weight, positive=True)
    weights = [weight * scale for scale in _SCALES]
    return Objective(
        "distillation",
        lambda output, batch: distillation(output, batch, weights=weights, **options),
        rows="chosen",
        needs=frozenset({"candidate_rewards"}),
        prefixes="candidate_lengths",
        figures={
            "accuracy": lambda output, batch: _by_row(
                output, batch, lambda found, student: best_agrees(found, student, weight)
            ),
            "guidance_kl": lambda output, batch: _by_row(
                output, batch, lambda found, student: _divergences(found, student, weight)[1]
            ),
            "lost_kl": lambda output, batch: _by_row(
                output, batch, lambda found, student: _divergences(found, student, weight)[0]
            ),
        },
    )


def _by_row(output: RewardOutput, batch: PairBatch, figure: object) -> Tensor:
    """The mean of a figure ``[N]`` over each row's prefixes ``[R]``; NaN without prefixes."""
    found, rewards = batch.candidates, output.candidate_rewards
    assert callable(figure)
    assert rewards is not None, "named in `needs`"
    assert found is not None, "rows with candidates"
    values = torch.full(batch.prefix_mask.shape, float("nan"), device=rewards.device)
    values[batch.prefix_mask] = figure(found, rewards[:, : found.tokens.shape[1]]).float()
    return values.nanmean(dim=1)
