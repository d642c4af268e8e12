"""Selection and order of a prepared split's rows: held out, deduplicated, blended, limited.

Only the index of a spool is used, so a million rows take tens of megabytes and a few seconds.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rewardsteer.data.config import DataConfig
from rewardsteer.data.spool import Spool
from rewardsteer.errors import DataError

SPLITS = ("train", "test")


class Selection(NamedTuple):
    """The rows of one split, in order.

    Attributes:
        rows: their numbers in the spool.
        turns: earlier occurrences of each row in the order (a blend may repeat rows); mostly 0.
        sources: the number of each row's source.
        ordinals: index of each row among the rows of its source with the same id, from 0.
        prefixed: whether all ids begin with their source, because sources share ids.
    """

    rows: np.ndarray
    turns: np.ndarray
    sources: np.ndarray
    ordinals: np.ndarray
    prefixed: bool

    def new_id(self, index: int, id: str, config: DataConfig) -> str:
        """The id under which the row at an index is written."""
        if self.prefixed:
            number = int(self.sources[index])
            id = f"{config.sources[number].name}{number + 1}/{id}"
        if self.ordinals[index]:
            id = f"{id}#{self.ordinals[index] + 1}"
        return f"{id}~{self.turns[index] + 1}" if self.turns[index] else id


def select(spool: Spool, config: DataConfig, dropped: Counter[str]) -> dict[str, Selection]:
    """Select the rows of both splits; rows left out are counted in ``dropped``.

    Raises:
        DataError: a source without a test split holds a single prompt.
    """
    rng = np.random.default_rng([config.seed, 1])
    by_source = {split: _parts(spool, config, split) for split in SPLITS}
    _hold_out(spool, config, by_source, dropped, rng)
    orders, turns = {}, {}
    for split in SPLITS:
        kept = [
            rng.permutation(rows) for rows in _unique(spool, by_source[split], dropped)
        ]
        rule = config.blend_rule if split == "train" else "concatenate"
        orders[split], turns[split] = _blend(kept, config, rule, rng, dropped)
        limit = config.train_rows if split == "train" else config.test_rows
        if limit is not None and limit < len(orders[split]):
            # Repetitions by a blend do not count as dropped: their row was read once.
            beyond = int((turns[split][limit:] == 0).sum())
            _count(dropped, f"beyond {split}_rows", beyond)
            orders[split], turns[split] = orders[split][:limit], turns[split][:limit]
    if config.drop_overlap:
        prompts = spool.prompts
        overlap = np.isin(prompts[orders["train"]], prompts[orders["test"]])
        _count(dropped, "with a prompt of the test split", (overlap & (turns["train"] == 0)).sum())
        orders["train"], turns["train"] = orders["train"][~overlap], turns["train"][~overlap]
    sources = _source_of_rows(spool)
    every = np.unique(np.concatenate([orders[split] for split in SPLITS]))
    prefixed = _collide(spool, sources, every)
    ordinals = _ordinals(spool, sources, every)
    return {
        split: Selection(
            orders[split], turns[split], sources[orders[split]],
            ordinals[np.searchsorted(every, orders[split])], prefixed,
        )
        for split in SPLITS
    }


def listed(dropped: Mapping[str, int]) -> str:
    """`` (COUNT REASON, …)`` for messages; "" where no row was dropped."""
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    return f" ({counts})" if counts else ""


def _parts(spool: Spool, config: DataConfig, split: str) -> list[np.ndarray]:
    return [
        np.asarray(spool.parts.get((number, split), range(0)), dtype=np.int64)
        for number in range(len(config.sources))
    ]


def _hold_out(
    spool: Spool, config: DataConfig, by_source: dict[str, list[np.ndarray]],
    dropped: Counter[str], rng: np.random.Generator,
) -> None:
    """Split sources without a test split by prompt, so that no prompt is on both sides."""
    without = [
        number for number in range(len(config.sources)) if (number, "test") not in spool.parts
    ]
    if not without:
        return
    prompts = np.unique(spool.prompts[np.concatenate([by_source["train"][n] for n in without])])
    if len(prompts) < 2:
        names = ", ".join(config.sources[number].name for number in without)
        after = f" after dropping rows{listed(dropped)}" if dropped else ""
        raise DataError(
            f"The source {names} holds {len(prompts)} prompt(s){after}; expected at "
            "least two, to hold one out for testing."
        )
    count = min(max(1, round(len(prompts) * config.test_fraction)), len(prompts) - 1)
    held_out = rng.choice(prompts, count, replace=False)
    for number in without:
        rows = by_source["train"][number]
        held = np.isin(spool.prompts[rows], held_out)
        by_source["train"][number], by_source["test"][number] = rows[~held], rows[held]


def _unique(
    spool: Spool, by_source: list[np.ndarray], dropped: Counter[str]
) -> list[np.ndarray]:
    """The rows of each source without duplicates of earlier rows of any source."""
    rows = np.concatenate(by_source)
    _, first = np.unique(spool.contents[rows], return_index=True)
    is_first = np.zeros(len(rows), dtype=bool)
    is_first[first] = True
    _count(dropped, "repeated", len(rows) - len(first))
    ends = np.cumsum([len(part) for part in by_source])[:-1]
    return [
        part[kept] for part, kept in zip(by_source, np.split(is_first, ends), strict=True)
    ]


def _blend(
    pools: list[np.ndarray], config: DataConfig, rule: str, rng: np.random.Generator,
    dropped: Counter[str],
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of all sources in one order, and for each the number of its earlier occurrences."""
    lengths = np.array([len(pool) for pool in pools])
    if rule == "concatenate" or (lengths > 0).sum() < 2:
        rows = np.concatenate(pools)
        if len(pools) > 1:
            rows = rng.permutation(rows)
        return rows, np.zeros(len(rows), dtype=np.int64)
    weights = np.array([source.weight for source in config.sources]) * (lengths > 0)
    drawn = interleave(lengths, weights, rule, rng)
    rows = np.zeros(len(drawn), dtype=np.int64)
    turns = np.zeros(len(drawn), dtype=np.int64)
    for number, pool in enumerate(pools):
        places = np.flatnonzero(drawn == number)
        if len(places):
            at = np.arange(len(places))
            rows[places], turns[places] = pool[at % len(pool)], at // len(pool)
    if rule == "first_exhausted":
        _count(dropped, "left over when a source ran dry", lengths.sum() - len(drawn))
    return rows, turns


def interleave(
    lengths: np.ndarray, weights: np.ndarray, rule: str, rng: np.random.Generator
) -> np.ndarray:
    """The number of the source that each row of a blend is taken from.

    Args:
        lengths: rows of each source.
        weights: their shares; a source without rows has weight 0.
        rule: ``first_exhausted`` stops when a source has no more rows; ``all_exhausted`` begins
            such a source again until each was used up; ``weighted`` continues without it.
        rng: random numbers of the draws.
    """
    blocks: list[np.ndarray] = []
    used = np.zeros(len(lengths), dtype=np.int64)
    weights = weights.astype(float)
    open_sources = weights > 0
    while open_sources.any():
        block = rng.choice(
            len(lengths), size=int(lengths.sum()) + 1, p=weights / weights.sum()
        )
        # Index in this block at which each remaining source runs out, if it does.
        ends = np.full(len(lengths), len(block))
        for number in np.flatnonzero(open_sources):
            places = np.flatnonzero(block == number)
            left = lengths[number] - used[number]
            if len(places) >= left:
                ends[number] = places[left - 1] + 1
        stop = int(ends[open_sources].min())
        blocks.append(block[:stop])
        used += np.bincount(block[:stop], minlength=len(lengths))
        spent = open_sources & (used >= lengths)
        open_sources = open_sources & ~spent
        if rule == "first_exhausted" and spent.any():
            break
        if rule == "weighted":
            weights = weights * open_sources
    return np.concatenate(blocks)


def _source_of_rows(spool: Spool) -> np.ndarray:
    sources = np.zeros(len(spool), dtype=np.int16)
    for (number, _), rows in spool.parts.items():
        sources[rows.start : rows.stop] = number
    return sources


def _collide(spool: Spool, sources: np.ndarray, rows: np.ndarray) -> bool:
    """Whether any two sources have rows with the same id."""
    ids = spool.ids[rows]
    apart = sum(len(np.unique(ids[sources[rows] == number])) for number in np.unique(sources[rows]))
    return len(np.unique(ids)) < apart


def _ordinals(spool: Spool, sources: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The index of each row among the rows of its source with the same id, in reading order."""
    keys, own = spool.ids[rows], sources[rows]
    order = np.lexsort((rows, keys, own))
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (keys[order][1:] != keys[order][:-1]) | (own[order][1:] != own[order][:-1])
    begins = np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))
    ordinals = np.zeros(len(rows), dtype=np.int64)
    ordinals[order] = np.arange(len(rows)) - begins
    return ordinals


def _count(dropped: Counter[str], reason: str, count: int) -> None:
    if count:
        dropped[reason] += int(count)
