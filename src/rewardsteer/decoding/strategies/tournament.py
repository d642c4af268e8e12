"""Best of n from comparisons: draw n responses, keep the one that is preferred to the others."""

from itertools import combinations

from rewardsteer.decoding.engine import Outcome
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.decoding.strategies.base import Strategy
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer


class Tournament(Strategy):
    """The winner among ``n`` samples, by a model that compares two responses.

    ``comparisons: all`` compares all pairs; the winner has the highest mean probability of being
    preferred (Borda's count with probabilities), the first of equals. ``knockout`` compares the
    best so far with the next, n − 1 times. Samples of the same text are not compared and tie.

    The reward of the answer is its mean probability of being preferred, over its comparisons; None
    if it had none.
    """

    uses = ("n", "comparisons")
    abilities = frozenset()
    draws_several = True
    compares = True

    async def respond(
        self, prompt: Encoded, engine: PromptEngine, scorer: PromptScorer
    ) -> Outcome:
        samples = await engine.draw(range(self.config.n))
        if len(samples) == 1:
            return Outcome(samples[0], None)
        if self.config.comparisons == "knockout":
            return await _knockout(samples, scorer)
        pairs = list(combinations(range(len(samples)), 2))
        chances = await _compare(scorer, [(samples[one], samples[other]) for one, other in pairs])
        means = [0.0] * len(samples)
        for (one, other), chance in zip(pairs, chances, strict=True):
            means[one] += chance / (len(samples) - 1)
            means[other] += (1 - chance) / (len(samples) - 1)
        best = max(range(len(samples)), key=lambda index: (means[index], -index))
        return Outcome(samples[best], means[best])


async def _knockout(samples: list[Sample], scorer: PromptScorer) -> Outcome:
    best, won = samples[0], []
    for rival in samples[1:]:
        [chance] = await _compare(scorer, [(best, rival)])
        if chance >= 0.5:
            won.append(chance)
        else:
            best, won = rival, [1 - chance]
    return Outcome(best, sum(won) / len(won))


async def _compare(scorer: PromptScorer, pairs: list[tuple[Sample, Sample]]) -> list[float]:
    """Probabilities that the first of each pair is preferred."""
    different = [pair for pair in pairs if pair[0].text != pair[1].text]
    found = iter(await scorer.preferences(different))
    return [0.5 if one.text == other.text else next(found) for one, other in pairs]
