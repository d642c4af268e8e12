"""Diverse verifier tree search (search-and-learn): beam search of independent trees."""

from asyncio import gather

from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer
from rewardsteer.decoding.strategies.steps import Judged, RankedSearch, best_of, distinct


class Dvts(RankedSearch):
    """``beam`` trees, each of which keeps one hypothesis: the best of its ``branches``
    continuations by a step, in at most ``max_steps`` rounds. The answer is the best hypothesis that
    came to its end, or the best of all.

    No tree ends another, so hypotheses stay more diverse than those of ``beam``. With one branch
    the trees are independent samples, and the answer is that of ``best_of_n``.

    What hypotheses are ranked by: `rewardsteer.decoding.strategies.steps.RankedSearch`."""

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        config, judged = self.config, dict[Sample, Judged]()
        trees: list[Sample] = []
        for _ in range(config.max_steps):
            growing = [
                place for place in range(config.beam) if not (trees and trees[place].finish_reason)
            ]
            if not growing:
                break
            grown = self.branch(engine, trees, growing)
            await gather(*(one.extend(config.step_tokens, stop=self.stop) for one in grown))
            families = [
                distinct([], grown[begin : begin + config.branches])
                for begin in range(0, len(grown), config.branches)
            ]
            fresh = [one for family in families for one in family]
            judged |= dict(zip(fresh, await self.judge(fresh, scorer), strict=True))
            kept = [max(family, key=lambda one: judged[one].score) for family in families]
            for one in set(fresh) - set(kept):
                one.abort()
            now = dict(zip(growing, kept, strict=True))
            trees = [now.get(place) or trees[place] for place in range(config.beam)]
        # The earlier of equals.
        best = best_of(sorted(trees, key=lambda one: -judged[one].score))
        return Outcome(best, self.reward(judged[best].value))
