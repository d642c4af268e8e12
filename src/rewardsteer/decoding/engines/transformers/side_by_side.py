"""Policy and reward model running at the same time on a CPU, each on a share of its threads.

Where a guide asks its reward model about the same prefixes as the policy (`VocabularySession`),
neither needs the other's result. One thread per model uses a core better than all threads sharing
one matrix product: at batch 1 a product is bound by memory on one core, whatever the other cores
do, and at larger batches threads wait for each other at its end. Results do not change.
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
        drafts: kind and length of drafts, if wanted; left out where they cannot be verified, which
            does not change responses.
    """
    weights, own = RowWeights(), copy.copy(guide)
    own.weight = weights
    # A reward model with the policy's weights runs in the policy's forward pass.
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
    """The reader, or one that runs the session in parallel, where that is faster.

    Args:
        reader: the policy's.
        session: a guide's, fresh.
        scorer: the guide's reward model or models, None without.
    """
    # A gated session runs after the policy.
    if scorer is None or not isinstance(session, VocabularySession):
        return reader
    threads = _share(reader.module, [one.reward_model.carrier for one in members(scorer)])
    return reader if threads is None else _Pair(reader, session, *threads)


def _share(policy: Any, rewards: Sequence[Any]) -> tuple[int, int] | None:
    """Threads of the policy and of the reward models; None: one after the other on all threads."""
    total = torch.get_num_threads()
    models = [policy, *rewards]
    if total < 2 or not _threads_are_per_caller() or torch.is_autocast_enabled("cpu"):
        return None
    own, *others = (set(one.parameters()) for one in models)
    if any(parameter.device.type != "cpu" for each in (own, *others) for parameter in each):
        return None
    # Shared weights may be switched between the two (adapters on one backbone).
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
    """The policy's reader, which runs the session in parallel."""

    def __init__(
        self, reader: PrefixReader, session: VocabularySession, ours: int, theirs: int
    ) -> None:
        self._reader, self._session = reader, session
        self._ours, self._theirs = ours, theirs
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="reward-model")

    @torch.no_grad()
    def step(self, prefix_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The policy's logits ``[B, V]``; the session has run on the same prefixes by then."""
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
        self._reader.select(rows)

    @property
    def forwards(self) -> list[int]:
        return self._reader.forwards

    @property
    def tokens(self) -> list[int]:
        return self._reader.tokens
