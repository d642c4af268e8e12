"""The maximum constraint of FaRMA (arXiv 2502.04517): a prefix is worth its best expansion."""

import math

from rewardsteer.distributed import global_mean
from rewardsteer.errors import ConfigError
from rewardsteer.objectives.base import Objective, ObjectiveResult
from rewardsteer.tensors import PairBatch, RewardOutput


def max_constraint(
    output: RewardOutput, batch: PairBatch, *, detach_target: bool = False,
    temperature: float | None = None,
) -> ObjectiveResult:
    """Mean squared error between r(x, y₁..i) and max_v r(x, y₁..i ∘ v) over the drawn prefixes.

    Published training makes one row per prefix. With causal attention, one pass over the whole
    chosen response holds both sides of the constraint at every prefix: Q(h_{i-1})[y_i] and
    max_v Q(h_i)[v].

    A whole response has no expansion, so the partial set lists proper prefixes alone.

    Args:
        output: needs ``prefix_rewards``, and ``best_next_token`` or, with a temperature,
            ``soft_next_token``.
        batch: ``prefix_mask [R, T]`` marks the last token of each prefix.
        detach_target: take the maximum as a fixed target. The published code lets gradients flow
            into both sides, which is the default.
        temperature: None takes the maximum. A τ > 0, in units of rewards, takes a soft one in its
            place, τ · log(mean_v exp(r(x, y₁..i ∘ v) / τ)), which all expansions have a part in: it
            nears the maximum as τ → 0 and the mean as τ → ∞ (see `kernels.vocabulary_soft`).
    """
    reward, best = output.prefix_rewards, output.best_next_token
    if temperature is not None:
        best = (output.soft_next_token or {})[temperature]
    assert reward is not None, "named in `needs`"
    assert best is not None, "named in `needs`"
    target = best.detach() if detach_target else best
    violation = reward - target
    # Prefixes differ in number from process to process; each counts the same.
    loss = global_mean(violation.square().sum(), batch.prefix_mask.sum())
    if not len(violation):
        return ObjectiveResult(loss, {})
    metrics = {
        "constraint_violation": violation.detach().abs().mean(),
        "constraint_reward": reward.detach().mean(),
    }
    return ObjectiveResult(loss, metrics)


def build(detach_target: bool = False, temperature: float | None = None) -> Objective:
    """The objective with its options bound.

    Raises:
        ConfigError: an option is not of its type or range.
    """
    if not isinstance(detach_target, bool):
        raise ConfigError(f"detach_target must be true or false, got {detach_target!r}.")
    if temperature is not None and not _positive(temperature):
        raise ConfigError(
            "temperature must be null for the hard maximum or a number above 0 for the soft one, "
            f"got {temperature!r}."
        )
    return Objective(
        "max_constraint",
        lambda output, batch: max_constraint(
            output, batch, detach_target=detach_target, temperature=temperature
        ),
        rows="chosen",
        needs=frozenset({
            "prefix_rewards", "best_next_token" if temperature is None else "soft_next_token",
        }),
        temperatures=frozenset() if temperature is None else frozenset({temperature}),
        prefixes="chosen_lengths",
    )


def _positive(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < math.inf
