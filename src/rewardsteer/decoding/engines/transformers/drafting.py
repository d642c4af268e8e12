"""A batch whose rows may draw several tokens per step: speculative decoding with exact results.

Policy and reward model process a row's drafted tokens in one forward pass each, which gives the
scores after every one of them. Tokens are then drawn from these scores one by one, with the row's
own random numbers, as long as they equal the draft. The first one that differs is the row's token,
and the rest of the draft is dropped.

Each token is drawn from the guided distribution with the random number that it would have had
without drafts. So responses are identical, token for token, and not only in distribution. (For a
draft of one token, acceptance with probability p(draft) and a redraw from the rest is the usual
rule of speculative sampling; drawing first and comparing is the same rule.)

Shapes: B rows, N positions, V the policy's logits a row.
"""

import copy
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from rewardsteer.decoding.engines.token_sample import TokenSample
from rewardsteer.decoding.engines.transformers.batch import Batch, Slot
from rewardsteer.decoding.guides.drafted import Ends, scores_at
from rewardsteer.decoding.guides.prefix import Prefix, check_numbers
from rewardsteer.decoding.sampling import pick_each
from rewardsteer.models.batching import left_pad
from rewardsteer.records import Cost


class DraftBatch(Batch):
    """As a `Batch`, with drafts.

    Args:
        kind: of drafts. ``ngram``: the tokens that followed an earlier occurrence of the last ones.
            ``policy``: what the policy draws alone, so that the reward model processes several
            tokens in one pass.
        tokens: longest draft.
        options: see `Batch`; the reader has `PrefixReader.tail`, and the session takes drafts.
    """

    def __init__(self, *options: object, kind: str, tokens: int) -> None:
        super().__init__(*options)  # type: ignore[arg-type]
        self._kind, self._most = kind, tokens
        self._drafts: list[list[int]] = []
        self._starts: list[int] = []
        self._step = 0
        self._all = (torch.empty(0, 0), torch.empty(0, 0))

    @torch.no_grad()
    def read(self, admitted: Sequence[TokenSample]) -> list[TokenSample]:
        """See `Batch.read`; a row that may stop before its next token has no draft."""
        began = time.perf_counter()
        self._arrange(admitted)
        rows = self.samples
        for sample in rows:
            sample.revised = False
        known = None
        if self._kind == "policy":
            self._drafts, known = self._of_policy(rows)
        else:
            self._drafts = [
                from_itself([*one.prompt_ids, *one.token_ids], self._room(one)) for one in rows
            ]
        ends = Ends([len(draft) + 1 for draft in self._drafts])
        ids, mask = left_pad([
            [*one.prompt_ids, *one.token_ids, *draft]
            for one, draft in zip(rows, self._drafts, strict=True)
        ])
        steps = [
            len(one.token_ids) + len(draft) for one, draft in zip(rows, self._drafts, strict=True)
        ]
        self._weights.rows = [sample.weight for sample in rows]
        drafted = Prefix(ids, mask, steps, [sample.name for sample in rows])
        logits = ends.of(self._reader, ids, mask) if known is None else known
        logits = logits[:, : rows[0].engine.vocabulary_size]
        self._all = logits, scores_at(self._session, drafted, logits, ends)
        self._check(ends, drafted)
        self._prefix = drafted
        self._starts = [sum(ends.counts[:row]) for row in range(len(rows))]
        self._step = 0
        self._show([0] * len(rows))
        return self._stopped(rows, drafted, began)

    def _room(self, sample: TokenSample) -> int:
        """Maximum draft length of a row: one more token is drawn in any case."""
        if sample.stop.entropy is not None:
            return 0
        return max(min(self._most, sample.limit - len(sample.token_ids) - 1), 0)

    def _of_policy(self, rows: Sequence[TokenSample]) -> tuple[list[list[int]], Tensor]:
        """Drafts that the policy draws with the random numbers of the next tokens, and its logits
        ``[N, V]`` before each draft token and after the last."""
        room = [self._room(sample) for sample in rows]
        rngs, configs = [copy.copy(one.rng) for one in rows], [one.config for one in rows]
        texts = [[*one.prompt_ids, *one.token_ids] for one in rows]
        steps: list[Tensor] = []
        for at in range(max(room) + 1):
            logits = self._reader.step(*left_pad(texts))
            steps.append(logits[:, : rows[0].engine.vocabulary_size])
            tokens = pick_each(steps[-1], rngs, configs)
            for text, token, most in zip(texts, tokens, room, strict=True):
                if at < most:
                    text.append(token)
        drafts = [text[len(text) - most :] if most else [] for text, most in zip(
            texts, room, strict=True
        )]
        logits = torch.cat([
            torch.stack([steps[at][row] for at in range(most + 1)])
            for row, most in enumerate(room)
        ])
        return drafts, logits

    def _check(self, ends: Ends, drafted: Prefix) -> None:
        """Fail rows without numbers at some position."""
        rows = ends.rows
        places = Prefix(
            drafted.ids, drafted.mask, [drafted.steps[row] for row in rows],
            [drafted.names[row] for row in rows],
        )
        check_numbers(*self._all, places)
        for place, error in places.failed.items():
            drafted.fail(rows[place], error)

    def _show(self, at: Sequence[int]) -> None:
        """Set the logits and scores ``[B, V]`` to those after ``at`` tokens of each row's draft."""
        places = [start + step for start, step in zip(self._starts, at, strict=True)]
        self._logits, self._scores = (one[places] for one in self._all)

    def _again(self, active: Sequence[int], tokens: Sequence[int]) -> list[int]:
        """The rows whose token was the next of their draft."""
        self._stale, self._step = True, self._step + 1
        self._show([min(self._step, len(draft)) for draft in self._drafts])
        return [
            place for place in active if self.samples[place].growing
            and self._drafts[place][self._step - 1 : self._step] == [tokens[place]]
        ]

    def _cost(self, place: int, slot: Slot) -> Cost:
        """Drafted tokens that were dropped are read, but a guide has not acted on them."""
        cost = super()._cost(place, slot)
        return cost.model_copy(update={"guided_steps": min(cost.guided_steps, cost.lm_calls)})


# The longest run of last tokens that is looked up.
_LONGEST = 3


def from_itself(tokens: Sequence[int], count: int) -> list[int]:
    """A draft by prompt lookup: the tokens that followed the last tokens earlier in the row. A
    repetition is continued as a repetition.

    The longest run of up to three last tokens that occurs earlier is used, at its last occurrence;
    the draft is empty where no token occurs twice.

    Args:
        tokens: prompt and response so far.
        count: most tokens to propose.
    """
    if count < 1:
        return []
    for size in range(min(_LONGEST, len(tokens) - 1), 0, -1):
        run = list(tokens[-size:])
        for begin in range(len(tokens) - size - 1, -1, -1):
            if list(tokens[begin : begin + size]) == run:
                text, at = list(tokens), begin + size
                for _ in range(count):
                    text.append(text[at])
                    at += 1
                return text[len(tokens) :]
    return []
