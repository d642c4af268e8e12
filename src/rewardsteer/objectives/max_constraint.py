"""The maximum constraint of FaRMA (arXiv 2502.04517): the value of a prefix is the reward of its
best one-token extension. Other backups can take the place of the maximum.

Which backup a vocabulary head learns decides what its guidance is worth. With p the policy's
next-token probabilities and Q(v) the rewards of the extensions, the value V of a prefix is:

    max           max_v Q(v)                          FaRMA's constraint
    soft          τ · log mean_v exp(Q(v) / τ)        between mean and maximum
    policy_soft   τ · log Σ_v p(v) · exp(Q(v) / τ)    guidance by logits + Q / τ then draws whole
                                                      responses from π · exp(r / τ), normalised
                                                      (arXiv 2502.20548)
    policy_mean   Σ_v p(v) · Q(v)                     what the policy reaches on average
                                                      (arXiv 2310.17022, 2405.06639)
    policy_top_k  max of Q over the policy's k most probable tokens
"""

import math
from typing import Literal

from rewardsteer.distributed import global_mean
from rewardsteer.errors import ConfigError
from rewardsteer.objectives.base import Objective, ObjectiveResult
from rewardsteer.tensors import PairBatch, PolicyBackup, RewardOutput

_POLICY: dict[str, Literal["soft", "mean", "top_k"]] = {
    "policy_soft": "soft", "policy_mean": "mean", "policy_top_k": "top_k",
}
BACKUPS = ("max", "soft", *_POLICY)


def max_constraint(
    output: RewardOutput, batch: PairBatch, *, detach_target: bool = False,
    temperature: float | None = None, backup: PolicyBackup | None = None,
) -> ObjectiveResult:
    """Mean squared error between r(x, y₁..i) and max_v r(x, y₁..i ∘ v) over the drawn prefixes.

    Published training makes one row per prefix. With causal attention, one pass over the whole
    chosen response holds both sides of the constraint at every prefix: Q(h_{i-1})[y_i] and
    max_v Q(h_i)[v].

    A whole response has no expansion, so the partial set lists proper prefixes alone.

    Args:
        output: needs ``prefix_rewards``, and ``best_next_token``, ``soft_next_token`` or
            ``policy_backups``.
        batch: ``prefix_mask [R, T]`` marks the last token of each prefix.
        detach_target: take the maximum as a fixed target. The published code lets gradients flow
            into both sides, which is the default.
        temperature: None takes the maximum. A τ > 0, in units of rewards, takes a soft one in its
            place, τ · log(mean_v exp(r(x, y₁..i ∘ v) / τ)), which all expansions have a part in: it
            nears the maximum as τ → 0 and the mean as τ → ∞ (see `kernels.vocabulary_soft`).
        backup: a backup under the policy in place of both.
    """
    reward, best = output.prefix_rewards, output.best_next_token
    if backup is not None:
        best = (output.policy_backups or {})[backup]
    elif temperature is not None:
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


def build(
    detach_target: bool = False, temperature: float | None = None, backup: str | None = None,
    top_k: int | None = None,
) -> Objective:
    """The objective with its options bound.

    Args:
        detach_target, temperature: see `max_constraint`.
        backup: ``max``; ``soft``: under equal probabilities; ``policy_soft``, ``policy_mean`` or
            ``policy_top_k``: under the policy that ``policy`` of the training names. None: ``soft``
            with a temperature, else ``max``.
        top_k: of ``policy_top_k``.

    Raises:
        ConfigError: an option is not of its type or range, or belongs to another backup.
    """
    if not isinstance(detach_target, bool):
        raise ConfigError(f"detach_target must be true or false, got {detach_target!r}.")
    if temperature is not None and not _positive(temperature):
        raise ConfigError(
            "temperature must be null for the hard maximum or a number above 0 for the soft one, "
            f"got {temperature!r}."
        )
    if backup is None:
        backup = "max" if temperature is None else "soft"
    _check(backup, temperature, top_k)
    under = None
    if backup in _POLICY:
        under = PolicyBackup(_POLICY[backup], temperature or 0.0, top_k or 0)
    field = {"max": "best_next_token", "soft": "soft_next_token"}.get(backup, "policy_backups")
    return Objective(
        "max_constraint",
        lambda output, batch: max_constraint(
            output, batch, detach_target=detach_target, temperature=temperature, backup=under
        ),
        rows="chosen",
        needs=frozenset({"prefix_rewards", field}),
        temperatures=(
            frozenset({temperature}) if temperature and backup == "soft" else frozenset()
        ),
        backups=frozenset() if under is None else frozenset({under}),
        prefixes="chosen_lengths",
    )


def _check(backup: str, temperature: float | None, top_k: int | None) -> None:
    if backup not in BACKUPS:
        raise ConfigError(f"backup must be one of {', '.join(BACKUPS)}, got {backup!r}.")
    if (temperature is not None) != (backup in ("soft", "policy_soft")):
        raise ConfigError(
            f"The backup {backup} {'needs a' if temperature is None else 'has no'} temperature; "
            "the backups soft and policy_soft have one, in units of rewards."
        )
    if (top_k is not None) != (backup == "policy_top_k"):
        raise ConfigError(
            f"The backup {backup} {'needs' if top_k is None else 'has no'} top_k, the number of "
            "the policy's most probable tokens; policy_top_k has one."
        )
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
        raise ConfigError(f"top_k must be a whole number from 1 on, got {top_k!r}.")


def _positive(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < math.inf
