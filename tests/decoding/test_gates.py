"""Gates: laws by enumeration and chi-square, plain twins, costs of lazily kept caches."""

import itertools
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method
from rewardsteer.decoding.guides.args import Args
from rewardsteer.decoding.guides.cd import Cd
from rewardsteer.decoding.guides.farma import Farma
from rewardsteer.decoding.guides.gates import Gate
from rewardsteer.decoding.guides.none import Plain
from rewardsteer.decoding.guides.opening import open_session
from rewardsteer.decoding.guides.prefix import Prefix
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.sampling import pick, row_generator
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.models.prefix_reader import PrefixReader
from tests.decoding.tables import PROMPT, TableEngine, TableScorer, answers, decode
from tests.decoding.test_toy_exactness import LENGTH, SEQUENCES, V

PREFIXES = [y for n in range(LENGTH) for y in itertools.product(range(V), repeat=n)]


def table(seed, scale=1.0):
    """Numbers of every prefix and next token, drawn once."""
    rng = np.random.default_rng(seed)
    found = {prefix: (scale * rng.normal(size=V)).tolist() for prefix in PREFIXES}
    return found.__getitem__


LOGITS, REWARDS = table(1, 0.9), table(2)


def scorer(kind="vocabulary", rewards=REWARDS):
    return TableScorer(lambda p: rewards(p[:-1])[p[-1]], kind, V)


def softmax(values):
    powers = np.exp(np.asarray(values) - np.max(values))
    return powers / powers.sum()


def laws(prefix, config):
    """The plain and the guided distribution of the next token, from the equations."""
    logits, rewards = np.array(LOGITS(prefix)), np.array(REWARDS(prefix))
    plain = softmax(logits / config.temperature)
    return plain, softmax((logits + config.weight * rewards) / config.temperature)


def measure(prefix, config):
    shares = softmax(LOGITS(prefix))
    if config.gate == "entropy":
        return -sum(p * math.log(p) for p in shares)
    if config.gate == "top1":
        return 1 - max(shares)
    plain, guided = laws(prefix, config)
    return sum(q * math.log(q / p) for p, q in zip(plain, guided, strict=True))


def is_open(prefix, config, name="0/0"):
    """The gate of the token after a prefix, from its definition."""
    if config.gate == "first":
        return len(prefix) < config.gate_share * config.max_new_tokens
    if config.gate == "random":
        draw = random.Random(f"{config.seed}/gate/{name}/{len(prefix)}").random()
        return draw < config.gate_share
    if config.gate == "always":
        return True
    values = [measure(prefix[:end], config) for end in range(len(prefix) + 1)]
    if config.gate_threshold is not None:
        return values[-1] >= config.gate_threshold
    return sum(one > values[-1] for one in values) < config.gate_share * len(values)


def law(config):
    """The probability of every sequence."""
    found = []
    for y in SEQUENCES:
        p = 1.0
        for end in range(LENGTH):
            plain, guided = laws(y[:end], config)
            p *= (guided if is_open(y[:end], config) else plain)[y[end]]
        found.append(p)
    return np.array(found)


SETTINGS = [
    {"gate": "entropy", "gate_threshold": 0.9}, {"gate": "entropy", "gate_share": 0.4},
    {"gate": "top1", "gate_threshold": 0.45}, {"gate": "kl", "gate_threshold": 0.15},
    {"gate": "kl", "gate_share": 0.4}, {"gate": "first", "gate_share": 0.4},
    {"gate": "random", "gate_share": 0.5},
]


def session_law(config):
    """The probability of every sequence by what a session answers, all sequences in one batch."""
    session, found = open_session(Farma(scorer(), config)), np.ones(len(SEQUENCES))
    for end in range(LENGTH):
        ids = torch.tensor([[*PROMPT, *y[:end]] for y in SEQUENCES])
        names = ["0/0"] * len(SEQUENCES)
        prefix = Prefix(ids, torch.ones_like(ids), [end] * len(SEQUENCES), names)
        logits = torch.tensor([LOGITS(y[:end]) for y in SEQUENCES])
        shares = (session.scores(prefix, logits) / config.temperature).softmax(-1)
        found *= [float(row[y[end]]) for row, y in zip(shares, SEQUENCES, strict=True)]
    return found


@pytest.mark.parametrize("gate", SETTINGS, ids=str)
def test_the_gated_law_by_enumeration(gate):
    config = DecodingConfig(
        top_k=0, max_new_tokens=LENGTH, weight=1.3, temperature=0.8, seed=5, **gate
    )
    opened = [is_open(prefix, config) for prefix in PREFIXES]
    assert 0 < sum(opened) < len(opened)
    np.testing.assert_allclose(session_law(config), law(config), rtol=1e-5)


def test_a_gate_fails_a_row_whose_scores_are_no_numbers():
    """Alone; it must not count as a row that the reward model does not pull."""
    config = DecodingConfig(weight=1e10, gate="kl", gate_threshold=0.1)
    rewards = scorer(rewards=lambda prefix: [1e30, 0.0, 0.0] if prefix else [0.0] * V)
    session, ids = open_session(Farma(rewards, config)), torch.tensor([[*PROMPT, 0], [0, *PROMPT]])
    prefix = Prefix(ids, torch.tensor([[1, 1], [0, 1]]), [1, 0], ["huge", "fine"])
    session.scores(prefix, torch.zeros(2, V))
    assert list(prefix.failed) == [0]
    assert "leave float32's range at step 2 of row 'huge'" in str(prefix.failed[0])


def test_responses_follow_the_gated_law():
    config = DecodingConfig(
        top_k=0, max_new_tokens=LENGTH, weight=2.0, temperature=0.8, seed=5, gate="kl",
        gate_share=0.4,
    )
    seen = dict.fromkeys(SEQUENCES, 0)
    for y in answers(Farma(scorer(), config), LOGITS, config, count=600, places=300):
        seen[y] += 1
    found = np.array(list(seen.values()))
    assert fit(found, law(config)) > 1e-3
    # The test can tell it from the laws without a gate and without a guide.
    assert fit(found, law(config.model_copy(update={"gate": "always"}))) < 1e-4
    assert fit(found, law(config.model_copy(update={"weight": 0.0}))) < 1e-4


def fit(found, law):
    """The p-value of counts under a law; what is rare counts together."""
    expected = law * found.sum()
    common = expected >= 5
    pooled = [np.append(one[common], one[~common].sum()) for one in (found, expected)]
    kept = pooled[1] > 0
    return chisquare(*(one[kept] for one in pooled)).pvalue


def law_of(share, name):
    """Greedy tokens of one response under a random gate, from its definition."""
    config = DecodingConfig(
        mode="greedy", top_k=0, max_new_tokens=LENGTH, gate="random", gate_share=share, seed=9
    )
    y = ()
    while len(y) < LENGTH:
        plain, guided = laws(y, config)
        y += (int(np.argmax(guided if is_open(y, config, name) else plain)),)
    return y


def test_a_random_gate_draws_from_seed_row_and_step():
    config = DecodingConfig(
        mode="greedy", top_k=0, max_new_tokens=LENGTH, gate="random", gate_share=0.5, seed=9
    )
    found = answers(Farma(scorer(), config), LOGITS, config, count=20)
    assert found == [law_of(0.5, f"{row}/0") for row in range(20)]
    assert len(set(found)) > 1


@pytest.mark.parametrize("gate", ["entropy", "top1", "kl", "first", "random"])
@pytest.mark.parametrize(("guide", "kind"), [(Farma, "vocabulary"), (Args, "scalar")])
def test_shares_of_one_and_zero_are_the_method_and_the_policy(guide, kind, gate):
    config = DecodingConfig(top_k=2, max_new_tokens=LENGTH, weight=2.0)
    gated = [config.model_copy(update={"gate": gate, "gate_share": float(n)}) for n in (0, 1)]
    plain = answers(Plain(None, config), LOGITS, config, count=30, places=7)
    full = answers(guide(scorer(kind), config), LOGITS, config, count=30, places=7)
    assert plain != full
    none, every = (
        answers(guide(scorer(kind), one), LOGITS, one, count=30, places=7) for one in gated
    )
    assert none == plain
    assert every == full


class Tiny:
    """A tiny llama as a reward model that guides ask."""

    objective, name, fingerprint = "partial", "tiny", ""
    autoregressive = False
    tokenizer = template = position_limit = None

    def __init__(self, kind, size=11, seed=0):
        torch.manual_seed(seed)
        self.head_kind, self.gives_next_token = kind, kind == "vocabulary"
        self.scores_last_token = kind == "scalar"
        self.vocabulary_size = size
        self.model = LlamaForCausalLM(LlamaConfig(
            vocab_size=size, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1,
        )).eval().double()
        self.reward_model = SimpleNamespace(carrier=self.model)

    def open(self):
        return PrefixReader(self.model)

    def next_token(self, ids, mask, cache):
        return 3 * cache.step(ids, mask).float()

    def candidates(self, ids, mask, candidates, cache):
        return 3 * cache.score_candidates(ids, mask, candidates)[..., 0].float()


def tiny_run(method, config, policy, places):
    """Responses of different lengths to prompts of different lengths."""
    class Reader(PrefixReader):
        def __init__(self):
            super().__init__(policy)

    engine = TableEngine(Reader, places, stop_ids=[3])
    prompts = [Encoded(str(n), [1 + (n + k) % 9 for k in range(1 + n % 3)]) for n in range(4)]
    return [
        (outcome.sample.token_ids, cost.model_copy(update={"seconds": 0.0}))
        for outcome, cost in decode(engine, method, config, prompts)
    ]


@pytest.fixture(scope="module")
def policy():
    return Tiny("vocabulary", seed=7).model


@pytest.mark.parametrize(("guide", "kind"), [(Farma, "vocabulary"), (Cd, "scalar")])
def test_lazy_caches_change_no_answer_and_save_positions(policy, guide, kind):
    config = DecodingConfig(
        top_k=3, max_new_tokens=8, weight=2.0, gate="random", gate_share=0.4, seed=3
    )
    alone, together = Tiny(kind), Tiny(kind)
    one = tiny_run(guide(alone, config), config, policy, places=1)
    many = tiny_run(guide(together, config), config, policy, places=3)
    assert [ids for ids, _ in one] == [ids for ids, _ in many]
    eager = plain_twin(Tiny(kind), config, policy)
    assert [ids for ids, _ in one] == [ids for ids, _ in eager]
    full = config.model_copy(update={"gate": "always", "gate_share": None})
    whole = tiny_run(guide(Tiny(kind), full), full, policy, places=1)
    for (ids, cost), (_, guided), (_, other) in zip(one, eager, many, strict=True):
        candidates = 3 if kind == "scalar" else 1
        assert cost.guided_steps == guided == other.guided_steps < len(ids)
        assert cost.rm_calls == other.rm_calls == guided * candidates
        assert cost.rm_forwards == other.rm_forwards == guided
        assert cost.lm_forwards == other.lm_forwards == len(ids)
        # No position twice, but that a batch reads the candidate that was taken once more.
        assert cost.rm_tokens <= len(ids) + 2 + (candidates if kind == "scalar" else 0) * guided
        assert cost.rm_tokens <= other.rm_tokens <= cost.rm_tokens + guided
    assert sum(c.rm_tokens for _, c in one) < sum(c.rm_tokens for _, c in whole) or kind != "scalar"


@torch.no_grad()
def plain_twin(scorer, config, policy):
    """Gated decoding without caches, batches or sessions: answers, and tokens that were guided."""
    found = []
    for n in range(4):
        row, count, ids = [1 + (n + k) % 9 for k in range(1 + n % 3)], 0, []
        rng = row_generator(config.seed, str(n), 0)
        while len(ids) < config.max_new_tokens and ids[-1:] != [3]:
            logits = policy(torch.tensor([row])).logits[0, -1].float()
            draw = random.Random(f"{config.seed}/gate/{n}/0/{len(ids)}").random()
            if draw < config.gate_share:
                count += 1
                best = logits.topk(config.top_k).indices
                if scorer.head_kind == "vocabulary":
                    logits += config.weight * 3 * scorer.model(torch.tensor([row])).logits[0, -1]
                else:
                    guided = torch.full_like(logits, -torch.inf)
                    for token in best.tolist():
                        reward = scorer.model(torch.tensor([[*row, token]])).logits[0, -1, 0]
                        guided[token] = logits[token] + config.weight * 3 * float(reward)
                    logits = guided
            token = pick(logits[None], [rng], config)[0]
            row.append(token)
            ids.append(token)
        found.append((ids, count))
    return found


def change(policy, head, row, weight):
    """The KL divergence of the head's guided law from the policy's, from its definition."""
    with torch.no_grad():
        logits = policy(torch.tensor([row])).logits[0, -1].float()
        guided = logits + weight * 3 * head.model(torch.tensor([row])).logits[0, -1].float()
    p, q = logits.log_softmax(-1), guided.log_softmax(-1)
    return float((q.exp() * (q - p)).sum())


def test_two_tiers_ask_the_scalar_model_where_the_head_would_change_much(policy):
    scalar, head, weight = Tiny("scalar"), Tiny("vocabulary", seed=1), 2.0
    head.objective = "max_constraint"
    rows = [[1 + (n + k) % 9 for k in range(1 + n % 3)] for n in range(4)]
    changes = sorted(change(policy, head, row, weight) for row in rows)
    threshold = (changes[1] + changes[2]) / 2
    config = DecodingConfig(
        method="cd", top_k=3, max_new_tokens=8, weight=weight, gate="kl", seed=3,
        gate_threshold=threshold,
    )
    found = tiny_run(build_method(config, scalar, scout=head), config, policy, places=3)
    # Of the first tokens two are guided and two are not.
    assert 2 <= sum(cost.guided_steps for _, cost in found) <= sum(len(y) for y, _ in found) - 2
    for row, (ids, cost) in zip(rows, found, strict=True):
        # The head at every token, three candidates at the guided ones.
        assert cost.rm_calls == len(ids) + 3 * cost.guided_steps
        steps = [change(policy, head, [*row, *ids[:end]], weight) for end in range(len(ids))]
        assert cost.guided_steps == sum(one >= threshold for one in steps)


@pytest.mark.parametrize(("values", "words"), [
    ({"gate": "entropy"}, "either a gate_threshold or a gate_share"),
    ({"gate": "random", "gate_threshold": 1.0}, "needs a gate_share"),
    ({"gate_share": 0.5}, "belongs to a gate"),
])
def test_settings_that_contradict_each_other(values, words):
    with pytest.raises(ValueError, match=words):
        DecodingConfig(**values)


def test_what_has_no_gate():
    config = DecodingConfig(method="best_of_n", gate="entropy", gate_share=0.5)
    with pytest.raises(ConfigError, match="does not guide token by token"):
        build_method(config, scorer("scalar"))
    config = DecodingConfig(method="farma", gate="entropy", gate_share=0.5)
    with pytest.raises(ConfigError, match="serves the gate 'kl' alone"):
        build_method(config, scorer(), scout=scorer())
    config = DecodingConfig(method="farma", gate="kl", gate_share=0.5)
    with pytest.raises(MismatchError, match="A reward model for the gate"):
        build_method(config, scorer(), scout=scorer("scalar"))


def test_a_measure_forgets_tokens_that_were_taken_back():
    config = DecodingConfig(gate="entropy", gate_share=0.5)
    gate = Gate(config)
    assert [gate.decide(step, value) for step, value in enumerate([1.0, 0.5, 2.0])] == [
        True, False, True
    ]
    gate.forget(1)
    # After one token the measures are 1.0 and 0.5 again; the third is new.
    assert not gate.decide(2, 0.4)
    other = gate.copy("1")
    assert other.decide(3, 1.5)
    assert gate.decide(3, 1.5)
