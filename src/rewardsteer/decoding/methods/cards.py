"""CARDS: segments that are drawn again until the reward model accepts them (arXiv 2406.16306)."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.fitting import check_scorer
from rewardsteer.decoding.guide import Prefix, Rewarder, stop_of
from rewardsteer.decoding.reviews import ReviewSession
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.errors import ConfigError


class Cards:
    """Segment guide: rejection sampling of segments.

    A segment ends before a token of which the policy is unsure (entropy of at least
    ``entropy_threshold``, after ``segment_min`` tokens), after ``segment_tokens`` tokens, or with
    the response. It is accepted with probability min(1, exp((r − τ) / β)), where r is the reward of
    the response so far, t tokens long, and

        τ(t) = r0 + (r* − r0) · t / max_new_tokens,    r0 = (1 − α) · r(prompt) + α · r*

    with r* ``reward_target``, α ``reward_share`` and β ``acceptance``. A rejected segment is drawn
    again, and after ``max_rejections`` rejections the best proposal is taken. The policy's cache
    goes back to the segment's start, where one token is read again for its logits.

    Args:
        scorer: a reward model with a scalar head.
        config: see above; ``mode`` and ``seed`` are used too.

    Raises:
        MismatchError: no reward model, or one without a scalar head.
        ConfigError: no r*; greedy, though rejected segments are to be drawn again; a segment's
            least length above its greatest.
    """

    name = "cards"
    level: Literal["segment"] = "segment"
    needs = "scalar"
    trained_on: tuple[str, ...] = ()
    default_for: str | None = None

    def __init__(self, scorer: Rewarder, config: DecodingConfig) -> None:
        check_scorer(self.name, type(self), scorer)
        if config.reward_target is None:
            raise ConfigError(
                "The method 'cards' needs a reward_target: a reward a little above what the "
                "policy's responses get on average."
            )
        if config.mode == "greedy" and config.max_rejections:
            raise ConfigError(
                "The method 'cards' draws rejected segments again, but greedy decoding gives the "
                "same one each time; use mode 'sample'."
            )
        if config.segment_min > config.segment_tokens:
            raise ConfigError(
                f"segment_min = {config.segment_min} exceeds segment_tokens = "
                f"{config.segment_tokens}; lower it."
            )
        self.scorer, self._config = scorer, config

    def open(self) -> "CardsSession":
        """Begin a batch."""
        return CardsSession(self.scorer, self._config)


@dataclass
class _Proposal:
    """The end of a response, from the segment's start on."""

    reward: float
    token_ids: list[int]
    ended: bool
    finish_reason: Literal["stop", "length"]


@dataclass
class _Segment:
    """Where a row's segment begins, and what was proposed for it.

    Attributes:
        chances: decides about acceptance, apart from the row's draws of tokens.
        start: tokens of the response before it.
        first: r0, once it is known.
        rejected: how often.
        best: of the rejected proposals.
    """

    chances: random.Random
    start: int = 0
    first: float | None = None
    rejected: int = 0
    best: _Proposal | None = field(default=None)


class CardsSession(ReviewSession):
    """Judges segments as they end."""

    def __init__(self, scorer: Rewarder, config: DecodingConfig) -> None:
        super().__init__(scorer)
        self._config = config
        self._segments: list[_Segment | None] = []
        # Rows that got an earlier proposal back with which they end.
        self._over: set[int] = set()

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows, or make place for new ones."""
        super().select(rows)
        self._segments = [None if row < 0 else self._segments[row] for row in rows]

    def scores(self, prefix: Prefix, logits: Tensor) -> Tensor:
        """The policy's logits ``[B, V]``. Rows whose segment ends here, for what comes next is
        unsure, and was rejected go back and wait."""
        self._segments = self._segments or [None] * len(prefix.rows)
        for place, row in enumerate(prefix.rows):
            if self._segments[place] is None:
                chances = row_generator(self._config.seed, row.name, -1)
                self._segments[place] = _Segment(chances, len(row.token_ids))
        if self._config.max_rejections:
            open_ = torch.special.entr(logits.float().softmax(dim=-1)).sum(dim=-1)
            unsure = (open_ >= self._config.entropy_threshold).tolist()
            ends = [
                place for place in range(len(prefix.rows))
                if unsure[place] and self._length(prefix, place) >= self._config.segment_min
            ]
            judged = self._judge(prefix, dict.fromkeys(ends, False))
            for place, (accepted, _) in judged.items():
                prefix.rows[place].waits = not accepted
            self._over = {place for place, (_, over) in judged.items() if over}
        return logits.float()

    def review(self, prefix: Prefix, ended: list[bool]) -> list[bool]:
        """Judge the segments that are as long as they may be, or end with their responses."""
        if not self._config.max_rejections:
            return ended
        ends = {
            place: over for place, over in enumerate(ended)
            if over or self._length(prefix, place) >= self._config.segment_tokens
        }
        out = [over or place in self._over for place, over in enumerate(ended)]
        for place, (_, over) in self._judge(prefix, ends).items():
            out[place] = over
        return out

    def _length(self, prefix: Prefix, place: int) -> int:
        return len(prefix.rows[place].token_ids) - self._segment(place).start

    def _segment(self, place: int) -> _Segment:
        segment = self._segments[place]
        assert segment is not None, "made when its row came"
        return segment

    def _judge(self, prefix: Prefix, ends: dict[int, bool]) -> dict[int, tuple[bool, bool]]:
        """Accept or reject the segments at some places.

        Args:
            prefix: all rows.
            ends: by place, whether the response ends there too.

        Returns:
            by place, whether the row stays as it is, and whether it ends.
        """
        self._begin(prefix, [place for place in ends if place not in prefix.failed])
        rewards = self.rewards_of(prefix, {
            place: self._text(prefix.rows[place], over) for place, over in ends.items()
            if place not in prefix.failed
        })
        return {
            place: self._decide(prefix, place, reward, ends[place])
            for place, reward in rewards.items()
        }

    def _text(self, row: Any, over: bool) -> list[int]:
        response = row.token_ids
        if over:
            response = self._scorer.close_response(row.token_ids, stop_of(row))
        return [*row.prompt_ids, *response]

    def _begin(self, prefix: Prefix, places: Sequence[int]) -> None:
        """Find r0 of rows that are judged for the first time."""
        target, share = self._config.reward_target, self._config.reward_share
        assert target is not None, "checked in Cards"
        new = [place for place in places if self._segment(place).first is None]
        if share < 1:
            rewards = self.rewards_of(
                prefix, {place: list(prefix.rows[place].prompt_ids) for place in new}
            )
        else:
            rewards = dict.fromkeys(new, target)
        for place, reward in rewards.items():
            self._segment(place).first = (1 - share) * reward + share * target

    def _decide(
        self, prefix: Prefix, place: int, reward: float, over: bool
    ) -> tuple[bool, bool]:
        row, segment, config = prefix.rows[place], self._segment(place), self._config
        chance = acceptance(config, segment.first or 0.0, reward, len(row.token_ids))
        if segment.chances.random() < chance:
            self._accept(row, segment, reward)
            return True, over
        proposal = _Proposal(reward, row.token_ids[segment.start :], over, row.finish_reason)
        if segment.best is None or reward > segment.best.reward:
            segment.best = proposal
        segment.rejected += 1
        if segment.rejected >= config.max_rejections and segment.best is proposal:
            self._accept(row, segment, reward)
            return True, over
        prefix.changed = True
        del row.token_ids[segment.start :]
        row.finish_reason = "length"
        if segment.rejected < config.max_rejections:
            return False, False
        best = segment.best
        row.token_ids += best.token_ids
        row.finish_reason = best.finish_reason
        self._accept(row, segment, best.reward)
        return False, best.ended

    def _accept(self, row: Any, segment: _Segment, reward: float) -> None:
        segment.start, segment.rejected, segment.best = len(row.token_ids), 0, None
        row.reward = reward


def acceptance(config: DecodingConfig, first: float, reward: float, tokens: int) -> float:
    """The probability with which a segment is accepted.

    Args:
        config: ``reward_target``, ``acceptance`` and ``max_new_tokens`` are used.
        first: r0.
        reward: of the response up to the segment's end, ``tokens`` long.
    """
    target = config.reward_target
    assert target is not None, "checked in Cards"
    needed = first + (target - first) * min(tokens / config.max_new_tokens, 1.0)
    if reward >= needed:
        return 1.0
    return math.exp((reward - needed) / config.acceptance) if config.acceptance else 0.0
