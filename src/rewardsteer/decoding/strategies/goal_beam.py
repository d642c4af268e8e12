"""Goal beam: steps ranked by likelihood and by nearness to a goal state (arXiv 2407.13887)."""

from asyncio import gather
from collections.abc import Sequence
from typing import Any

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engine import Encoded, Outcome, Sample, Stop
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.decoding.strategies.prompt import PromptEngine, PromptScorer


class GoalBeam(Strategy):
    """Beam search over steps: score(y) = log p_LM(y | x) / |y| + w · cos(h(x, y), goal).

    ``beam`` hypotheses are kept; each is continued ``branches`` times by a step, in at most
    ``max_steps`` rounds. A step ends after a token whose text contains ``step_separator``, or after
    ``step_tokens`` tokens. Equal hypotheses count once. The answer is the best that came to its
    end, or the best of all.

    h is the reward model's state of the response's last token, read exactly as it was generated.
    The likelihood is that of temperature 1 over the whole vocabulary, however tokens are drawn. A
    response with a token that the reward model does not know gets the least cosine, -1. Weight 0
    reads nothing. A round's draws come from generators of the prompt's own, the first of which goes
    to the best hypothesis.

    Raises:
        ConfigError: several candidates, but greedy.
    """

    wants_goal = True
    has_weight = True
    abilities = frozenset({"extend", "logprobs"})
    asks_log_probabilities = True

    def __init__(self, scorer: Any, config: DecodingConfig, goal: Any = None) -> None:
        super().__init__(scorer, config, goal)
        self.require_draws(
            self.samples,
            f"beam × branches = {config.beam} × {config.branches} candidates",
        )

    @property
    def samples(self) -> int:
        """Of one prompt, at a time."""
        return self.config.beam * self.config.branches

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        """The best hypothesis."""
        config, scores = self.config, dict[Sample, float]()
        stop = Stop(text=config.step_separator)
        # As many empty ones as the beam holds: the first round draws as widely as the later ones.
        kept: list[Sample] = []
        for _ in range(config.max_steps):
            parents = [one for one in kept if not one.finish_reason]
            if kept and not parents:
                break
            grown = [
                engine.fork(parent, index) for index, parent in enumerate(
                    parent for parent in parents for _ in range(config.branches)
                )
            ] or [engine.start(index) for index in range(self.samples)]
            for parent in parents:
                parent.abort()
            await gather(*(one.extend(config.step_tokens, stop=stop) for one in grown))
            finished = [one for one in kept if one.finish_reason]
            fresh = _distinct(finished, grown)
            scores |= dict(zip(fresh, await self._scores(fresh, scorer), strict=True))
            # The earlier of equals.
            kept = sorted([*finished, *fresh], key=lambda one: -scores[one])[: config.beam]
        best = next((one for one in kept if one.finish_reason == "stop"), kept[0])
        return Outcome(best)

    async def _scores(self, samples: Sequence[Sample], scorer: PromptScorer) -> list[float]:
        likely = []
        for sample in samples:
            assert sample.log_probability is not None, "the strategy asks for it"
            likely.append(sample.log_probability / sample.length)
        if self.config.weight == 0 or self.goal is None:
            return likely
        size = self.scorer.vocabulary_size
        known = [one for one in samples if max(one.token_ids, default=0) < size]
        similar = dict(zip(known, await scorer.similarities(known, self.goal), strict=True))
        return [
            score + self.config.weight * similar.get(one, -1.0)
            for score, one in zip(likely, samples, strict=True)
        ]


def _distinct(finished: Sequence[Sample], grown: Sequence[Sample]) -> list[Sample]:
    """The first of those with the same tokens, and none that a finished one has."""
    seen = {_content(one) for one in finished}
    fresh = []
    for one in grown:
        if _content(one) in seen:
            one.abort()
            continue
        seen.add(_content(one))
        fresh.append(one)
    return fresh


def _content(sample: Sample) -> tuple[int, ...] | str:
    return tuple(sample.token_ids) or sample.text
