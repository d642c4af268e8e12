"""The maximum constraint: one pass over a chosen response against one row per prefix.

Loss and gradients of the constraint at the same token prefixes, in three ways: ours; one row per
prefix with a tensor of all logits, as in published code; and one row per prefix with our head. The
third separates the gain of the one pass from that of the head. Prefix rows go in micro-batches of
similar length, of the fastest size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.backbones import PADDING, Backbone, autocast, precision
from benchmarks.harness import Row, device, in_turn, rates, timed
from benchmarks.shapes import HH_ROWS, TLDR, ULTRAFEEDBACK_ROWS, Shape, take
from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.data.sets import partial_row
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.max_constraint import max_constraint
from rewardsteer.tensors import PairBatch

Step = Callable[[RewardModel, int, Sequence[PairBatch]], float]
# As published, prefixes have more than this many response tokens.
START = 10


@dataclass(frozen=True)
class Sizes:
    """What the table measures; ``shapes`` with the prefixes drawn per response (None: all)."""

    backbone: Backbone
    shapes: tuple[tuple[Shape, int | None], ...]
    responses: int
    micro_batches: tuple[int, ...]
    runs: int


SIZES = Sizes(
    backbone=Backbone(4, 256, 8192),
    shapes=((TLDR, None), (HH_ROWS, None), (ULTRAFEEDBACK_ROWS, 20)), responses=4,
    micro_batches=(4, 16, 32), runs=3,
)
SETUP = (
    f"{SIZES.backbone}; {SIZES.responses} responses per batch, every prefix from token "
    f"{START + 1} on; of UltraFeedback-like responses, the published 20 prefixes."
)


def run(sizes: Sizes = SIZES) -> list[Row]:
    """Prefixes per second at each shape, against both forms with one row per prefix."""
    model = RewardModel(sizes.backbone.causal_lm(), HeadConfig(kind="vocabulary"))
    # All rows are read before anything is timed, so that missing data is reported at once.
    batches = {shape.name: _responses(sizes, shape, count) for shape, count in sizes.shapes}
    return [row for name, rows in batches.items() for row in _cases(sizes, model, name, rows)]


def _responses(sizes: Sizes, shape: Shape, count: int | None) -> list[Row]:
    # The shortest proper prefix has START + 1 tokens, so a response needs more than that.
    pairs = take(shape, sizes.responses, sizes.backbone.vocabulary, longer_than=START + 1)
    return [partial_row(pair, start=START, count=count, seed=0) for pair in pairs]


def _cases(sizes: Sizes, model: RewardModel, name: str, rows: Sequence[Row]) -> list[Row]:
    prefixes = split(rows)
    losses: list[float] = []

    def seconds(step: Step, parts: Sequence[PairBatch]) -> float:
        return timed(lambda: losses.append(step(model, len(prefixes), parts)))

    sides = [partial(seconds, own_head, [collate(rows)])]
    chosen = {}
    for form, step in PLAIN.items():
        seconds(step, micro_batches(prefixes[-1:], 1))
        some = prefixes[-max(sizes.micro_batches) :]
        chosen[form] = min(
            sizes.micro_batches, key=lambda size: seconds(step, micro_batches(some, size))
        )
        sides.append(partial(seconds, step, micro_batches(prefixes, chosen[form])))
    sides[0]()
    losses.clear()
    found = in_turn(sides, sizes.runs)
    _check(losses)
    return [
        rates(
            f"{name}: sequence per prefix, {form}", [(run[0], run[side]) for run in found],
            work=len(prefixes), unit="prefixes/s",
        ) | {"prefixes": len(prefixes), "micro-batch": size}
        for side, (form, size) in enumerate(chosen.items(), start=1)
    ]


def collate(rows: Sequence[Row]) -> PairBatch:
    """A batch of chosen responses with their prefixes marked, as in training, on the device."""
    fields: dict[str, Any] = PairCollator(PADDING, paired=False, prefixes="chosen_lengths")(rows)
    return to_batch({
        name: value.to(device()) if isinstance(value, Tensor) else value
        for name, value in fields.items()
    })


def split(rows: Sequence[Row]) -> list[Row]:
    """One row per prefix, shortest first."""
    prefixes = [
        row | {"chosen_ids": row["chosen_ids"][:length], "chosen_lengths": [length]}
        for row in rows for length in row["chosen_lengths"]
    ]
    return sorted(prefixes, key=lambda row: len(row["prompt_ids"]) + len(row["chosen_ids"]))


def micro_batches(prefixes: Sequence[Row], size: int) -> list[PairBatch]:
    """Rows padded in batches of ``size``."""
    return [collate(prefixes[at : at + size]) for at in range(0, len(prefixes), size)]


def own_head(model: RewardModel, total: int, parts: Sequence[PairBatch]) -> float:
    """The constraint's loss over ``total`` prefixes, with gradients, by our objective."""
    model.zero_grad()
    loss = 0.0
    for batch in parts:
        with autocast():
            share = batch.prefix_mask.sum() / total
            output = model(batch, {"prefix_rewards", "best_next_token"})
            part = max_constraint(output, batch).loss * share
        part.backward()
        loss += part.item()
    return loss


def all_logits(model: RewardModel, total: int, parts: Sequence[PairBatch]) -> float:
    """The same loss from all logits; each row ends with its prefix."""
    model.zero_grad()
    loss = 0.0
    for batch in parts:
        with autocast():
            logits = model.base(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits.float()
        rows, last = torch.arange(len(logits), device=logits.device), batch.last_positions
        reward = logits[rows, last - 1].gather(1, batch.input_ids[rows, last, None]).squeeze(1)
        part = (reward - logits[rows, last].max(dim=-1).values).square().sum() / total
        part.backward()
        loss += part.item()
    return loss


def _check(losses: Sequence[float]) -> None:
    allowed = 1e-4 if precision() == "fp32" else 5e-2
    if max(losses) - min(losses) > allowed * max(losses):
        raise RuntimeError(
            f"The losses lie between {min(losses)} and {max(losses)}; the sides do not compute the "
            "same and cannot be compared."
        )


PLAIN: dict[str, Step] = {"all logits": all_logits, "our head": own_head}
