"""Beam search over steps: draw continuations, let a step guide rank them, keep the best.

It knows a guide's scores and a way to go on with rows, neither model nor engine. Every round reads
the prefixes anew. The draws of a prompt come from beam · branches generators of its own, the first
of which goes to the best hypothesis; so they depend on nothing but the request and the seed.
"""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import StepGuide
from rewardsteer.decoding.loop import Row
from rewardsteer.decoding.requests import Request
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.records import Cost


@dataclass(frozen=True)
class Hypothesis:
    """A response in the making.

    Attributes:
        token_ids: all its steps.
        log_probability: under the policy, summed over the tokens.
        score: what the guide says of it.
        finish_reason: None while it can go on.
    """

    token_ids: tuple[int, ...] = ()
    log_probability: float = 0.0
    score: float = float("-inf")
    finish_reason: Literal["stop", "length"] | None = None


def search(
    requests: Sequence[Request], prompts: Sequence[Sequence[int]], guide: StepGuide,
    config: DecodingConfig, *, tokenizer: Any, advance: Callable[[Sequence[Row]], None],
) -> list[Row]:
    """The best response to each prompt, at the cost of all its candidates; a row with an error
    where one of them failed.

    Args:
        requests: the batch.
        prompts: their token ids.
        guide: ranks the candidates.
        config: ``seed`` and ``max_new_tokens`` are used here.
        tokenizer: the policy's; says which tokens end a step.
        advance: goes on with rows until each has ended, filling them in.
    """
    ends = _step_ends(tokenizer, guide.separator)
    beams = [
        _Beam(request.id, ids, guide, config)
        for request, ids in zip(requests, prompts, strict=True)
    ]
    for _ in range(guide.max_steps):
        grown = [beam.grow(ends) for beam in beams]
        rows = [row for several in grown for row in several]
        if not rows:
            break
        advance(rows)
        fresh = [beam.gather(several) for beam, several in zip(beams, grown, strict=True)]
        _judge(beams, fresh, guide)
    return [beam.answer() for beam in beams]


def _step_ends(tokenizer: Any, separator: str) -> Callable[[int], bool]:
    """Whether a token ends a step; asked again and again about the same few, so remembered."""

    @functools.cache
    def ends(token: int) -> bool:
        text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return bool(separator) and separator in text

    return ends


class _Beam:
    """The hypotheses of one prompt."""

    def __init__(
        self, name: str, prompt_ids: Sequence[int], guide: StepGuide, config: DecodingConfig
    ) -> None:
        self.name, self.prompt_ids = name, prompt_ids
        self.cost = Cost()
        self.error: Exception | None = None
        self._guide, self._longest = guide, config.max_new_tokens
        # As many empty ones as the beam holds: the first round draws as widely as the later ones.
        self._kept = [Hypothesis()] * guide.beam
        self._parents: list[Hypothesis] = []
        count = guide.beam * guide.branches
        self._draws = [row_generator(config.seed, name, sample) for sample in range(count)]

    def grow(self, ends: Callable[[int], bool]) -> list[Row]:
        """The next round's rows: every live hypothesis, ``branches`` times; none at the end, or
        once a candidate has failed."""
        live = [one for one in self._kept if one.finish_reason is None and self.error is None]
        self._parents = [one for one in live for _ in range(self._guide.branches)]
        return [
            Row(
                self.name, [*self.prompt_ids, *parent.token_ids], draws,
                until=self._until(len(parent.token_ids), ends),
                log_probability=parent.log_probability,
            )
            for parent, draws in zip(self._parents, self._draws, strict=False)
        ]

    def gather(self, rows: Sequence[Row]) -> list[Hypothesis]:
        """The candidates that the rows make, equal ones once; the cost of all is counted."""
        seen = {one.token_ids for one in self._kept if one.finish_reason}
        fresh = []
        for row in rows:
            self.cost += row.cost
            self.error = self.error or row.error
        if self.error is not None:
            return []
        for parent, row in zip(self._parents, rows, strict=True):
            token_ids = (*parent.token_ids, *row.token_ids)
            if token_ids in seen:
                continue
            seen.add(token_ids)
            ended = row.finish_reason == "stop" or len(token_ids) >= self._longest
            total = row.log_probability
            assert total is not None, "asked for in grow()"
            fresh.append(Hypothesis(
                token_ids, total, finish_reason=row.finish_reason if ended else None
            ))
        return fresh

    def keep(self, candidates: Sequence[Hypothesis]) -> None:
        """Keep the best among candidates and finished hypotheses; the earlier of equals."""
        finished = [one for one in self._kept if one.finish_reason]
        ranked = sorted([*finished, *candidates], key=lambda one: -one.score)
        self._kept = ranked[: self._guide.beam]

    def answer(self) -> Row:
        """The best hypothesis that came to its end, or the best of all; empty with an error."""
        if self.error is not None:
            return Row(
                self.name, self.prompt_ids, self._draws[0], cost=self.cost, error=self.error
            )
        best = next((one for one in self._kept if one.finish_reason == "stop"), self._kept[0])
        return Row(
            self.name, self.prompt_ids, self._draws[0], token_ids=list(best.token_ids),
            finish_reason=best.finish_reason or "length",
            cost=self.cost.model_copy(update={"new_tokens": len(best.token_ids)}),
            log_probability=best.log_probability,
        )

    def _until(self, before: int, ends: Callable[[int], bool]) -> Callable[[Sequence[int]], bool]:
        limit = min(self._guide.step_tokens, self._longest - before)
        return lambda token_ids: len(token_ids) >= limit or ends(token_ids[-1])


def _judge(
    beams: Sequence[_Beam], fresh: Sequence[list[Hypothesis]], guide: StepGuide
) -> None:
    """Have the candidates of all prompts scored together, and each beam keep its best."""
    began = time.perf_counter()
    asked = [
        (beam, one) for beam, several in zip(beams, fresh, strict=True) for one in several
    ]
    judged = iter(
        guide.judge(
            [beam.prompt_ids for beam, _ in asked], [one.token_ids for _, one in asked],
            [one.log_probability for _, one in asked], [beam.name for beam, _ in asked],
        )
    )
    share = (time.perf_counter() - began) / max(1, len(asked))
    for beam, several in zip(beams, fresh, strict=True):
        scored = []
        for one in several:
            score, reads, error = next(judged)
            beam.error = beam.error or error
            beam.cost += Cost(
                rm_calls=reads.calls, rm_forwards=reads.forwards, rm_tokens=reads.tokens,
                seconds=share,
            )
            scored.append(replace(one, score=score))
        beam.keep(scored)
