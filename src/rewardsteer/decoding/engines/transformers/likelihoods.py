"""Log-probabilities of tokens that another policy drew, from a cached forward pass."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rewardsteer.data.thoughts import shared_length
from rewardsteer.decoding.likelihoods import without_nan
from rewardsteer.decoding.memory import out_of_memory, translate_oom
from rewardsteer.kernels.precision import exact
from rewardsteer.models.batching import left_pad
from rewardsteer.models.causal import log_probabilities
from rewardsteer.models.prefix_reader import PrefixReader
from rewardsteer.records import Cost

_REMEDY = (
    "while the policy read {count} continuations of a response together; lower n, step_tokens or "
    "max_new_tokens"
)


class PolicyLikelihoods:
    """A `rewardsteer.decoding.likelihoods.Likelihoods` of a policy in this process.

    The continuations of one call run in one pass and stay cached, so that the next call, about
    continuations of one of them, runs new tokens alone. A model without a usable cache runs whole
    rows.

    Args:
        reader: of the policy, fresh.
        prompt_ids: the prompt of all responses, at least one token.
    """

    def __init__(self, reader: PrefixReader, prompt_ids: Sequence[int]) -> None:
        self._reader, self._prompt = reader, list(prompt_ids)
        self._rows: list[list[int]] = []
        self.cost = Cost()

    async def of(
        self, before: Sequence[int], continuations: Sequence[Sequence[int]]
    ) -> list[float]:
        began, base = time.perf_counter(), [*self._prompt, *before]
        read = self._behind_cache if self._reader.continues else self._whole
        try:
            values = read(base, [list(one) for one in continuations])
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise translate_oom(error, _REMEDY.format(count=len(continuations))) from error
        self.cost += Cost(seconds=time.perf_counter() - began)
        return without_nan(values)

    def _behind_cache(self, base: list[int], continuations: list[list[int]]) -> list[float]:
        reader, count = self._reader, len(continuations)
        shared = [shared_length(row, base) for row in self._rows]
        nearest = max(range(len(shared)), key=shared.__getitem__, default=0)
        if max(shared, default=0) < len(base):
            # Once for all of them.
            reader.select([nearest])
            self._counted(lambda: reader.step(*left_pad([base])))
            nearest = 0
        reader.select([nearest] * count)
        self._rows = [[*base, *one] for one in continuations]
        # The logits before a continuation give the log-probability of its first token.
        counts = [len(one) + 1 for one in continuations]
        logits = self._counted(lambda: reader.tail(*left_pad(self._rows), counts))
        return [
            _of_tokens(rows[-len(one) - 1 : -1], one)
            for rows, one in zip(logits, continuations, strict=True)
        ]

    def _counted(self, read: Callable[[], Tensor]) -> Tensor:
        """The result of a forward pass, with its cost counted."""
        reader = self._reader
        before = (sum(reader.forwards), sum(reader.tokens))
        answer = read()
        self.cost += Cost(
            lm_forwards=sum(reader.forwards) - before[0], lm_tokens=sum(reader.tokens) - before[1]
        )
        return answer

    def _whole(self, base: list[int], continuations: list[list[int]]) -> list[float]:
        rows = [(base, one) for one in continuations]
        self.cost += Cost(
            lm_forwards=len(rows), lm_tokens=sum(len(base) + len(one) for one in continuations)
        )
        found = log_probabilities(self._reader.module, rows, None, None)
        return [float(values.sum()) for values in found]


def _of_tokens(logits: Tensor, tokens: Sequence[int]) -> float:
    """Summed log-probability (nats) of tokens, given the logits ``[T, V]`` before each."""
    chosen = torch.tensor(tokens, device=logits.device)[:, None]
    values = logits.float().log_softmax(dim=-1).gather(1, chosen)
    return float(exact(values).sum())
