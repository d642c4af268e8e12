"""Policy and reward model reading at the same time on a CPU, each on a share of its threads.

Where a guide asks its reward model about the same prefixes as the policy (`VocabularySession`),
neither waits for the other's answer. One thread reading one model uses a core better than all
threads sharing one product: at batch 1 a product waits for memory on one core, whatever the others
do, and at larger ones threads wait for each other at its end. What is computed does not change.
"""

import copy
import functools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

from rewardsteer.decoding.engines.transformers.batch import Batch
from rewardsteer.decoding.engines.transformers.drafting import DraftBatch
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.drafted import takes_drafts
from rewardsteer.decoding.guides.opening import open_session
from rewardsteer.decoding.guides.session import VocabularySession
from rewardsteer.decoding.guides.weights import RowWeights
from rewardsteer.models.compatibility import members
from rewardsteer.models.prefix_reader import PrefixReader

Drafts = tuple[str, int]

# Smaller models (bytes) take Python longer than arithmetic, and two threads of it slow each other:
# measured, 13 MB at batch 1 are as fast either way, 3 MB take half as long again.
_LEAST = 32 * 2**20
# Threads are whole, so models of unlike sizes finish at different times; beyond this ratio to an
# even end, one after the other on all threads is faster.
_UNEVEN = 1.1


def open_batch(policy: Any, guide: LogitsGuide, drafts: Drafts | None = None) -> Batch:
    """A batch for the rows of a guide, on the policy and the guide's reward models.

    Args:
        policy: a causal LM.
        guide: of the rows.
        drafts: kind and length of drafts, where they are wanted; they are left out where they
            cannot be verified, which changes no answer.
    """
    weights, own = RowWeights(), copy.copy(guide)
    own.weight = weights
    # A reward model on the policy's own weights reads with it.
    shared = getattr(guide.scorer, "open_policy", None)
    reader, session = None if shared is None else shared(), open_session(own)
    if reader is None:
        reader = PrefixReader(policy)
        if drafts is not None and reader.continues and takes_drafts(session):
            kind, tokens = drafts
            return DraftBatch(reader, session, weights, kind=kind, tokens=tokens)
        reader = side_by_side(reader, session, own.scorer)
    return Batch(reader, session, weights)


def side_by_side(reader: PrefixReader, session: Any, scorer: Any) -> Any:
    """The reader, or one that has the session read beside it, where that is faster.

    Args:
        reader: the policy's.
        session: a guide's, fresh.
        scorer: the guide's reward model or models, None without.
    """
    # A gated one is asked once the policy has answered.
    if scorer is None or not isinstance(session, VocabularySession):
        return reader
    threads = _share(reader.module, [one.reward_model.carrier for one in members(scorer)])
    return reader if threads is None else _Pair(reader, session, *threads)


def _share(policy: Any, rewards: Sequence[Any]) -> tuple[int, int] | None:
    """Threads of the policy and of the reward models, or None to take all for each in turn."""
    total = torch.get_num_threads()
    models = [policy, *rewards]
    if total < 2 or not _threads_are_per_caller() or torch.is_autocast_enabled("cpu"):
        return None
    own, *others = (set(one.parameters()) for one in models)
    if any(parameter.device.type != "cpu" for each in (own, *others) for parameter in each):
        return None
    # Weights that both models have may be told for whom they work (adapters on one backbone).
    if any(own & each for each in others):
        return None
    ours, theirs = _size(own), sum(_size(each) for each in others)
    if min(ours, theirs) < _LEAST:
        return None
    second = min(max(round(total * theirs / (ours + theirs)), 1), total - 1)
    first = total - second
    if max(ours / first, theirs / second) > _UNEVEN * (ours + theirs) / total:
        return None
    return first, second


def _size(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.nbytes for parameter in parameters)


@functools.cache
def _threads_are_per_caller() -> bool:
    """Whether each thread that calls torch has a number of threads of its own."""
    return "ATen parallel backend: OpenMP" in torch.__config__.parallel_info()


class _Pair:
    """Reads as the policy's reader does, and has the session read meanwhile."""

    def __init__(
        self, reader: PrefixReader, session: VocabularySession, ours: int, theirs: int
    ) -> None:
        self._reader, self._session = reader, session
        self._ours, self._theirs = ours, theirs
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="reward-model")

    @torch.no_grad()
    def step(self, prefix_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The policy's answer ``[B, V]``; the session has read the same prefixes by then."""
        before = torch.get_num_threads()
        reading = self._beside.submit(self._read, prefix_ids, attention_mask)
        torch.set_num_threads(self._ours)
        try:
            logits = self._reader.step(prefix_ids, attention_mask)
        finally:
            wait([reading])
            torch.set_num_threads(before)
        reading.result()
        return logits

    def _read(self, prefix_ids: Tensor, attention_mask: Tensor) -> None:
        torch.set_num_threads(self._theirs)
        self._session.prefetch(prefix_ids, attention_mask)

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat the policy's rows."""
        self._reader.select(rows)

    @property
    def forwards(self) -> list[int]:
        """Network passes of each row."""
        return self._reader.forwards

    @property
    def tokens(self) -> list[int]:
        """Tokens read of each row."""
        return self._reader.tokens
