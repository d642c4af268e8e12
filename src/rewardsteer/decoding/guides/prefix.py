"""The prefixes of one step of a batch that a guide scores, and how a row of them fails alone.

Shapes: B rows, T columns of the left-padded prefixes, V the policy's logits per row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rewardsteer.errors import NonFiniteError, RewardsteerError
from rewardsteer.records import Cost

if TYPE_CHECKING:
    from rewardsteer.decoding.guides.gates import Gate
    from rewardsteer.decoding.sample import Encoded

# Scores up to here can be divided by the least temperature and stay within float32.
_LARGEST = 1e30


@dataclass
class Prefix:
    """The prefixes of a batch.

    Attributes:
        ids: ``[B, T]`` prompts with their responses so far, padded on the left.
        mask: ``[B, T]``, 1 on real tokens.
        steps: per row, tokens generated so far; rows of different ages share a batch. 0 marks a row
            that is new to its place.
        names: per row, the request's id, for messages.
        prompts: per row, its prompt, for reward models that take texts.
        gates: per row, its gate; empty: a gated session keeps gates by place.
        failed: the error of each row that cannot go on; see `fail`.
    """

    ids: Tensor
    mask: Tensor
    steps: Sequence[int]
    names: Sequence[str]
    prompts: Sequence["Encoded"] = ()
    gates: Sequence["Gate"] = ()
    failed: dict[int, RewardsteerError] = field(default_factory=dict)

    def fail(self, row: int, error: RewardsteerError) -> None:
        """End one row of the batch with an error of its own. The other rows go on, so a guide's
        result for this row must not affect theirs; the row's own result is not used."""
        self.failed.setdefault(row, error)


    def of(self, rows: Sequence[int]) -> "Prefix":
        """The prefixes of some rows; failures in the result are not failures here."""
        return Prefix(
            self.ids[list(rows)], self.mask[list(rows)], [self.steps[row] for row in rows],
            [self.names[row] for row in rows],
            [self.prompts[row] for row in rows if self.prompts],
            [self.gates[row] for row in rows if self.gates],
        )


class RewardUsage(NamedTuple):
    """What one row cost the reward model; see `rewardsteer.records.Cost`. ``steps`` are those at
    which the guide acted, ``gate_tokens`` those of ``tokens`` that a gate's own model read."""

    calls: int = 0
    forwards: int = 0
    tokens: int = 0
    steps: int = 0
    gate_tokens: int = 0

    def since(self, before: "RewardUsage", **policy: float) -> Cost:
        """The cost added since ``before``, with what the policy cost, by fields of `Cost`."""
        return Cost(
            rm_calls=self.calls - before.calls, rm_forwards=self.forwards - before.forwards,
            rm_tokens=self.tokens - before.tokens, guided_steps=self.steps - before.steps,
            gate_tokens=self.gate_tokens - before.gate_tokens, **policy,
        )


def finite(rewards: Tensor, prefix: Prefix) -> Tensor:
    """Rewards ``[B, …]`` with 0 in the rows that have NaN or infinite ones; those rows fail."""
    # A finite sum has only finite terms, at a fiftieth of the time of checking each.
    if bool(rewards.sum().isfinite()):
        return rewards
    fine = torch.isfinite(rewards).flatten(1).all(dim=1)
    for row in (~fine).nonzero().squeeze(1).tolist():
        prefix.fail(row, _not_a_number("The reward model gave NaN or infinite rewards", prefix,
                                       row))
    return torch.where(fine.view(-1, *[1] * (rewards.dim() - 1)), rewards, 0.0)


def check_numbers(logits: Tensor, scores: Tensor, prefix: Prefix) -> None:
    """Fail the rows of which no token can be picked: logits or scores ``[B, V]`` with NaN or +inf,
    or without any finite one."""
    # NaN, +inf, or no finite value: each shows in the row's maximum.
    best = torch.stack([logits.amax(dim=1).to(scores), scores.amax(dim=1)])
    fine = best.abs() < _LARGEST
    if bool(fine.all()):
        return
    policy, guided = fine.tolist()
    for row, (one, both) in enumerate(zip(policy, guided, strict=True)):
        if not one:
            prefix.fail(row, _not_a_number("The policy gave NaN or infinite logits", prefix, row))
        elif not both:
            prefix.fail(row, NonFiniteError(
                f"The weighted rewards leave float32's range at step {prefix.steps[row] + 1} of "
                f"row {prefix.names[row]!r}; lower the weight."
            ))


def _not_a_number(what: str, prefix: Prefix, row: int) -> NonFiniteError:
    """The error of a row for which a model gave no numbers, naming step and row."""
    return NonFiniteError(
        f"{what} at step {prefix.steps[row] + 1} of row {prefix.names[row]!r}; the checkpoint may "
        "be damaged, or its values overflow in this dtype: try float32."
    )
