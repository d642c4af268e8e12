"""Several wishes at once: powers of the policy, signs, cautious ensembles, each against its law."""

import numpy as np
import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.ensemble import JudgingEnsemble, RewardEnsemble, combined, rewards_of_all
from rewardsteer.decoding.generate import build_method
from rewardsteer.decoding.guides.farma import Farma
from rewardsteer.decoding.guides.opening import open_session
from rewardsteer.decoding.guides.prefix import Prefix
from rewardsteer.decoding.guides.weights import RowWeights, Weight
from rewardsteer.models.text_scorer import TextScorer
from tests.decoding.tables import PROMPT, TableScorer

V = 5
RNG = np.random.default_rng(8)
LOGITS, ONE, TWO = (RNG.normal(size=V) for _ in range(3))


class Table(TableScorer):
    tokenizer = template = position_limit = None


def table(values):
    return Table(lambda y: float(values[y[-1]]), "vocabulary", V)


def law(scorer, config, logits=LOGITS):
    """The next token's distribution by what a session answers."""
    session, ids = open_session(Farma(scorer, config)), torch.tensor([PROMPT])
    prefix = Prefix(ids, torch.ones_like(ids), [0], ["0"])
    scores = session.scores(prefix, torch.tensor(logits)[None].float())[0]
    return (scores / config.temperature).softmax(-1).numpy()


def product(*experts):
    """∏ p_i^c_i, normalised, of pairs of logits and powers."""
    total = 1.0
    for logits, power in experts:
        p = np.exp(logits) / np.exp(logits).sum()
        total = total * p**power
    return total / total.sum()


def test_an_expert_and_an_anti_expert_are_a_product_of_powers():
    # Proxy-tuning (arXiv 2401.08565), which is also the target of speculative sampling with a
    # tuned and an untuned draft: p · p₊ / p₋.
    found = law(RewardEnsemble([table(ONE), table(TWO)], [1.0, -1.0]), DecodingConfig())
    np.testing.assert_allclose(found, product((LOGITS, 1), (ONE, 1), (TWO, -1)), rtol=1e-5)
    # The policy to a power, and both wishes with weights of their own.
    config = DecodingConfig(policy_power=0.4, weight=1.5)
    found = law(RewardEnsemble([table(ONE), table(TWO)], [0.7, 0.2]), config)
    expected = product((LOGITS, 0.4), (ONE, 1.05), (TWO, 0.3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_without_a_weight_a_power_is_a_temperature():
    power = law(table(ONE), DecodingConfig(policy_power=2.5, weight=0.0))
    np.testing.assert_allclose(power, product((LOGITS, 2.5)), rtol=1e-5)
    none = law(table(ONE), DecodingConfig(policy_power=0.0, weight=1.0))
    np.testing.assert_allclose(none, product((ONE, 1)), rtol=1e-5)
    # A token that cannot be drawn stays so.
    barred = np.where(np.arange(V) == 2, -np.inf, LOGITS)
    found = law(table(ONE), DecodingConfig(policy_power=0.3), barred)
    kept = np.arange(V) != 2
    expected = np.exp(0.3 * LOGITS + ONE) * kept
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-5)


def test_a_limit_counts_the_power_too():
    config = DecodingConfig(policy_power=3.0, weight=2.0, max_kl=0.05, top_k=0)
    found, plain = law(table(ONE), config), product((LOGITS, 1))
    assert (found * np.log(found / plain)).sum() == pytest.approx(0.05, rel=1e-4)


def test_rows_have_powers_of_their_own():
    rows = RowWeights()
    rows.rows = [Weight(DecodingConfig(policy_power=power)) for power in (1.0, 0.5)]
    logits, rewards = torch.randn(2, V), torch.randn(2, V)
    found = rows.guided(logits, rewards, [0, 0])
    torch.testing.assert_close(found, torch.tensor([[1.0], [0.5]]) * logits + rewards)


def test_rules_of_ensembles():
    own = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, -1.0]], dtype=torch.float64)
    assert rewards_of_all(own, "sum", 9.0).tolist() == [4, 4, 2]
    assert rewards_of_all(own, "min", 9.0).tolist() == [1, 2, -1]
    # Means 2, 2, 1; the members' standard deviations 1, 0, 2.
    assert rewards_of_all(own, "cautious", 0.5).tolist() == [1.5, 2, 0]
    for rule, combine in (
        ("min", np.minimum), ("cautious", lambda a, b: (a + b) / 2 - 2 * abs(a - b) / 2)
    ):
        ensemble = RewardEnsemble([table(ONE), table(TWO)], [1.0, 0.5], rule, 2.0)
        expected = product((LOGITS + combine(ONE, 0.5 * TWO), 1))
        np.testing.assert_allclose(law(ensemble, DecodingConfig()), expected, rtol=1e-5)


class Judge(TextScorer):
    """Judges by a function of the text."""

    def __init__(self, reward, name):
        self.reward, self.name = reward, name

    def score(self, prompts, completions, *, batch_size=16, closed=True):
        return np.array([self.reward(text) for text in completions])


def test_reward_models_judge_responses_together():
    judges = [Judge(len, "long"), Judge(lambda text: 10.0 * text.count("!"), "loud")]
    config = DecodingConfig(method="best_of_n", ensemble_rule="min")
    both = combined(judges, [1.0, 0.5], config)
    assert isinstance(both, JudgingEnsemble)
    assert both.score(["p"] * 3, ["abc", "!", "ab!!"]).tolist() == [0.0, 1.0, 4.0]
    assert build_method(config, both).scorer is both
    guiding = config.model_copy(update={"method": "farma"})
    assert isinstance(combined([table(ONE), table(TWO)], [1, 1], guiding), RewardEnsemble)
