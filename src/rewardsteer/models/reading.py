"""Hidden states of token rows in padded batches; a prompt that rows share is computed once.

The prompt of several completions is put into a key/value cache; the completions, sorted by length
across prompts, continue from it. Positions and masks are those of the whole rows, so every token
gets the state that its row alone would give it.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from rewardsteer.models.batching import batches, left_pad, right_pad
from rewardsteer.models.capabilities import supports_prefix_cache
from rewardsteer.models.reward_model import RewardModel

Rows = Sequence[Sequence[int]]

# Default tokens of a forward pass. Accelerators need many to be busy. On a CPU, activations that
# fall out of its caches cost up to half the speed (measured: beyond 3 MiB in the widest part of a
# layer), and with fewer tokens than the least, loading the weights dominates.
_ON_ACCELERATORS, _LEAST, _MOST, _WIDEST = 16384, 1024, 4096, 3 * 2**20
# A cached token takes part in attention only: so many of them count as one that is computed.
_CACHED = 4
# The share of a group's tokens that must be saved; below it the cache costs more than it saves.
_WORTH = 0.1


class HiddenBatch(NamedTuple):
    """The states of one batch of rows.

    Attributes:
        rows: their numbers.
        ids: ``[R, T]`` the columns that were computed, padded on the right: whole rows, or, where
            prompts are shared, the prompt's last token and the response.
        hidden: ``[R, T, D]`` states of these columns.
        begins: ``[R]`` column of each row's first response token.
        last: ``[R]`` column of its last token.
    """

    rows: list[int]
    ids: Tensor
    hidden: Tensor
    begins: Tensor
    last: Tensor

    @property
    def last_states(self) -> Tensor:
        """States ``[R, D]`` of the rows' last tokens."""
        return self._states(self.last)

    @property
    def prompt_states(self) -> Tensor:
        """States ``[R, D]`` of the prompts' last tokens; of the first token without a prompt."""
        return self._states((self.begins - 1).clamp(min=0))

    def _states(self, columns: Tensor) -> Tensor:
        return self.hidden[torch.arange(len(self.rows), device=columns.device), columns]


def iter_hidden_states(
    model: RewardModel, prompts: Rows, responses: Rows, *, batch_size: int | None,
    batch_tokens: int | None, share: bool,
) -> Iterator[HiddenBatch]:
    """The states of all rows, each once, in batches of similar length.

    Args:
        model: in evaluation mode.
        prompts, responses: token ids; no row is empty.
        batch_size: rows of a forward pass; None: as many as ``batch_tokens`` allows.
        batch_tokens: tokens of a forward pass, padding included; of a shared prompt a row counts a
            quarter. None: no limit other than ``batch_size``, or `default_batch_tokens`.
        share: compute a prompt that several rows share once, where that saves enough and the model
            supports it.
    """
    if batch_size is None and batch_tokens is None:
        batch_tokens = default_batch_tokens(model)
    limits = {"rows": batch_size, "tokens": batch_tokens}
    groups = _worth_sharing(prompts, responses) if share else []
    if groups and not supports_prefix_cache(model.backbone):
        groups = []
    yield from _shared(model, prompts, responses, groups, limits)
    shared = {row for group in groups for row in group}
    alone = [row for row in range(len(prompts)) if row not in shared]
    lengths = [len(prompts[row]) + len(responses[row]) for row in alone]
    for batch in batches(lengths, **limits):
        rows = [alone[place] for place in batch]
        ids, _ = right_pad([[*prompts[row], *responses[row]] for row in rows])
        begins = [len(prompts[row]) for row in rows]
        states = functools.partial(RewardModel.hidden_states, attention_mask=None)
        yield _read(model, rows, ids.to(model.device), states, begins, responses)


def default_batch_tokens(model: RewardModel) -> int:
    """A number of tokens per forward pass that suits the model and its device."""
    if model.device.type != "cpu":
        return _ON_ACCELERATORS
    config = model.backbone.config.get_text_config(decoder=True)
    width = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return min(max(_WIDEST // (width * model.backbone.dtype.itemsize), _LEAST), _MOST)


def _worth_sharing(prompts: Rows, responses: Rows) -> list[list[int]]:
    """Groups of rows with the same prompt, where computing it once saves enough."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        if response:  # an empty one has no token to continue with
            groups.setdefault(tuple(prompt), []).append(row)
    chosen = []
    for prompt_ids, group in groups.items():
        whole = sum(len(prompt_ids) + len(responses[row]) for row in group)
        if (len(group) - 1) * (len(prompt_ids) - 1) > _WORTH * whole:
            chosen.append(group)
    return chosen


def _shared(
    model: RewardModel, prompts: Rows, responses: Rows, groups: Sequence[list[int]],
    limits: dict[str, int | None],
) -> Iterator[HiddenBatch]:
    # The prompt's last token is computed with each response: its state gives the first reward.
    lengths = [len(prompts[group[0]]) - 1 for group in groups]
    for several in batches(lengths, **limits):
        beginnings = [prompts[groups[number][0]][:-1] for number in several]
        cached, mask = _read_beginnings(model, beginnings)
        members = [(row, place) for place, number in enumerate(several) for row in groups[number]]
        costs = [1 + len(responses[row]) + mask.shape[1] // _CACHED for row, _ in members]
        for batch in batches(costs, **limits):
            rows = [members[item][0] for item in batch]
            places = torch.tensor([members[item][1] for item in batch])
            ids, _ = right_pad([[prompts[row][-1], *responses[row]] for row in rows])
            states = functools.partial(_read_on, cached=cached, mask=mask, places=places)
            yield _read(model, rows, ids.to(model.device), states, [1] * len(rows), responses)


def _read_beginnings(
    model: RewardModel, beginnings: Rows
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Keys and values ``[U, H, W, E]`` of each layer, and which columns ``[U, W]`` are real;
    padded on the left, so that responses follow without a gap."""
    ids, mask = (one.to(model.device) for one in left_pad(beginnings))
    # Made without the configuration, a cache keeps all columns; masks hide what a window hides.
    cache = DynamicCache()
    model.backbone(
        input_ids=ids, attention_mask=None if bool(mask.all()) else mask,
        past_key_values=cache, use_cache=True,
        **model.positions((mask.cumsum(1) - 1).clamp(min=0)),
    )
    return [(layer.keys, layer.values) for layer in cache.layers], mask.bool()


def _read_on(
    model: RewardModel, ids: Tensor, cached: list[tuple[Tensor, Tensor]], mask: Tensor,
    places: Tensor,
) -> Tensor:
    """States ``[R, T, D]`` of columns that follow the beginnings at ``places [R]`` (on the CPU)."""
    cache = DynamicCache()
    for number, (keys, values) in enumerate(cached):
        # Layers may lie on several devices.
        there = places.to(keys.device)
        cache.update(keys[there], values[there], number)
    before = mask[places.to(mask.device)]
    lengths, columns = before.sum(1), torch.arange(ids.shape[1], device=ids.device)
    whole = torch.cat([before, before.new_ones(ids.shape)], dim=1)
    output = model.backbone(
        input_ids=ids, attention_mask=whole.long(), past_key_values=cache, use_cache=True,
        **model.positions(lengths[:, None] + columns),
    )
    states: Tensor = output.last_hidden_state
    return states


def _read(
    model: RewardModel, rows: list[int], ids: Tensor,
    states: Callable[[RewardModel, Tensor], Tensor], begins: Sequence[int], responses: Rows,
) -> HiddenBatch:
    hidden = states(model, ids)
    # Under a device map, states come from the device of the last layer.
    place = hidden.device
    first = torch.tensor(begins, device=place)
    last = first + torch.tensor([len(responses[row]) for row in rows], device=place) - 1
    return HiddenBatch(rows, ids.to(place), hidden, first, last)
