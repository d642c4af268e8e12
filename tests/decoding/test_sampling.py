"""What is drawn: the exact distribution of every setting, transformers' own greedy runs, ends."""

import itertools
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.transformers.admission import Bounds
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.penalties import penalized
from rewardsteer.decoding.running import in_order
from rewardsteer.decoding.sampling import log_probabilities, pick, pick_each
from rewardsteer.errors import ConfigError
from tests.decoding.tables import TableEngine, toy_prompts
from tests.decoding.test_generate import PROMPTS, folders, make_policy, make_scorer  # noqa: F401

V, EOS = 9, 0
LOGITS = torch.tensor([0.3, -1.2, 2.0, 1.4, -0.4, 0.9, 1.4, -3.0, 0.0])
PROMPT, WRITTEN = [3, 5, 5], [2, 6, 2, 2]
SETTINGS = {
    "plain": {}, "temperature": {"temperature": 0.6}, "top_k": {"top_k": 4},
    "top_p": {"top_p": 0.7}, "a tiny top_p": {"top_p": 0.0}, "min_p": {"min_p": 0.25},
    "repetition": {"repetition_penalty": 1.7}, "presence": {"presence_penalty": 1.1},
    "frequency": {"frequency_penalty": -0.7}, "bias": {"logit_bias": {4: 2.5, 2: -30.0}},
    "min_tokens": {"min_tokens": 5}, "min_tokens reached": {"min_tokens": 4},
    "stop ids wait too": {"min_tokens": 5, "stop_token_ids": [2], "ignore_eos": True},
    "all": {
        "temperature": 1.3, "top_k": 6, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 0.8,
        "presence_penalty": 0.4, "frequency_penalty": 0.3, "logit_bias": {1: 3.0}, "min_tokens": 9,
    },
}


class Fixed:
    """A generator that gives one number."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


def row():
    return SimpleNamespace(prompt_ids=PROMPT, token_ids=list(WRITTEN), drawable=None)


def expected(config):
    """vLLM's order, one token at a time, in float64."""
    scores = LOGITS.double().tolist()
    for token, bias in config.logit_bias:
        scores[token] += bias
    if len(WRITTEN) < config.min_tokens:
        for token in {*config.stop_token_ids, *(() if config.ignore_eos else (EOS,))}:
            scores[token] = -math.inf
    for token in set(PROMPT + WRITTEN):
        penalty = config.repetition_penalty
        scores[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
    for token in set(WRITTEN):
        scores[token] -= config.frequency_penalty * WRITTEN.count(token) + config.presence_penalty
    weights = np.exp(np.array(scores) / config.temperature)
    weights[weights < config.min_p * weights.max()] = 0
    order = np.argsort(-weights, kind="stable")
    weights[order[config.top_k or V :]] = 0
    chances = weights / weights.sum()
    before = np.cumsum(chances[order]) - chances[order]
    chances[order[(before >= config.top_p) & (np.arange(V) > 0)]] = 0
    return chances / chances.sum()


def distribution(config, count=20_000):
    """How often each token is drawn at equally spaced uniform numbers."""
    scores = penalized(LOGITS[None], [row()], [config], frozenset((EOS,)))
    draws = [Fixed((number + 0.5) / count) for number in range(count)]
    picked = pick(scores.expand(count, V), draws, config)
    return np.bincount(picked, minlength=V) / count


@pytest.mark.parametrize("name", SETTINGS)
def test_distributions(name):
    config = DecodingConfig(**{"top_k": 0, **SETTINGS[name]})
    assert distribution(config) == pytest.approx(expected(config), abs=1e-4)


@pytest.mark.parametrize(("name", "theirs"), [
    ("plain", {}), ("temperature", {"temperature": 0.6}), ("top_k", {"top_k": 4}),
    ("top_p", {"top_p": 0.7}), ("min_p", {"min_p": 0.25}),
    ("repetition", {"repetition_penalty": 1.7}), ("min_tokens", {"min_new_tokens": 5}),
    ("bias", {"sequence_bias": [[[4], 2.5], [[2], -30.0]]}),
])
def test_transformers_draws_from_the_same(name, theirs):
    policy, _ = make_policy(vocab_size=V)
    ids = torch.tensor([PROMPT + WRITTEN])
    settings = GenerationConfig(do_sample=True, eos_token_id=EOS, **{"top_k": 0, **theirs})
    policy._prepare_special_tokens(settings, device=ids.device)
    processors = policy._get_logits_processor(
        settings, input_ids_seq_length=len(PROMPT), device="cpu",
        logits_processor=LogitsProcessorList(),
    )
    chances = processors(ids, LOGITS[None].clone()).softmax(dim=-1)[0].numpy()
    config = DecodingConfig(**{"top_k": 0, **SETTINGS[name]})
    assert distribution(config) == pytest.approx(chances, abs=1e-4)


def test_neutral_rows_keep_their_numbers():
    scores = torch.randn(5, V, generator=torch.Generator().manual_seed(0)).bfloat16()
    rows, plain = [row() for _ in range(5)], DecodingConfig(top_k=3)
    assert penalized(scores, rows, [plain] * 5, frozenset((EOS,))) is scores
    configs = [plain, *(DecodingConfig(**SETTINGS[name]) for name in ("all", "repetition", "bias")),
               plain]
    changed = penalized(scores, rows, configs, frozenset((EOS,)))
    assert torch.equal(changed[[0, 4]], scores[[0, 4]].float())
    assert not (changed[1:4] == scores[1:4]).all(dim=1).any()
    draws = [Fixed(number / 7) for number in range(5)]
    together = pick_each(changed, draws, configs)
    alone = [
        pick_each(penalized(scores[[at]], [rows[at]], [configs[at]], frozenset((EOS,))),
                  [draws[at]], [configs[at]])[0] for at in range(5)
    ]
    assert together == alone
    # Today's neutral draw, written out.
    best, tokens = (scores[4].float() / 1.0).topk(3)
    chances = best.softmax(dim=-1).double().cumsum(0)
    assert together[4] == tokens[int((chances <= 4 / 7 * chances[-1]).sum())]


def test_where_only_the_end_is_left_it_comes():
    scores = torch.full((1, V), -math.inf)
    scores[0, EOS] = 1.0
    config = DecodingConfig(min_tokens=99, temperature=1e-6)
    found = penalized(scores, [row()], [config], frozenset((EOS,)))
    assert pick(found, [Fixed(0.999)], config) == [EOS]


@pytest.mark.parametrize("settings", [
    {"repetition_penalty": 1.3}, {"repetition_penalty": 0.7}, {"min_tokens": 6},
    {"logit_bias": {7: 4.0, 20: -3.0}}, {"logit_bias": {7: 4.0}, "repetition_penalty": 1.2},
    {},
])
def test_greedy_equals_transformers_generate(settings):
    policy, tokenizer = make_policy(eos_bias=1.0)
    config = DecodingConfig(mode="greedy", max_new_tokens=16, batch_size=3, **settings)
    results = list(generate(policy, tokenizer, PROMPTS, build_method(config), config))
    names = {"repetition_penalty": "repetition_penalty", "min_tokens": "min_new_tokens"}
    theirs = {names[name]: value for name, value in settings.items() if name in names}
    if config.logit_bias:
        theirs["sequence_bias"] = [[[token], bias] for token, bias in config.logit_bias]
    for prompt, result in zip(PROMPTS, results, strict=True):
        ids = torch.tensor([tokenizer.encode(prompt)])
        settings_of_theirs = GenerationConfig(
            do_sample=False, max_new_tokens=16, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, **theirs,
        )
        whole = policy.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=settings_of_theirs
        )
        assert result.token_ids == whole[0, ids.shape[1] :].tolist()


def test_log_probabilities():
    logits = torch.randn(3, V, generator=torch.Generator().manual_seed(1))
    found = log_probabilities(logits, [4, 0, 8], top=2)
    for at, (token, one) in enumerate(zip([4, 0, 8], found, strict=True)):
        chances = logits[at].log_softmax(dim=0)
        assert one.value == pytest.approx(float(chances[token]))
        assert [v for _, v in one.best] == pytest.approx(chances.topk(2).values.tolist())
        assert [i for i, _ in one.best] == chances.topk(2).indices.tolist()
    assert log_probabilities(logits, [4, 0, 8])[0].best == []


def test_rows_record_what_they_ask_for():
    """The policy's own numbers, whatever bends what is drawn from."""
    config = DecodingConfig(max_new_tokens=4, temperature=0.5, presence_penalty=1.0, top_k=5)
    engine = TableEngine(lambda prefix: LOGITS.tolist(), 3)
    rows = [
        engine.start(prompt, 0, config, rng=random.Random(number), top=top,
                     log_probabilities=number == 2)
        for number, (prompt, top) in enumerate(zip(toy_prompts(3), (None, 0, 3), strict=True))
    ]
    list(in_order([row.extend for row in rows], engine.room, engine.close, most=3))
    assert rows[0].logprobs == []
    chances = LOGITS.log_softmax(dim=0)
    for one in rows[1:]:
        assert [found.value for found in one.logprobs] == pytest.approx(
            chances[one.token_ids].tolist()
        )
        assert [len(found.best) for found in one.logprobs] == [one.top] * 4
    assert rows[2].log_probability == pytest.approx(
        sum(found.value for found in rows[2].logprobs)
    )


def run(config, scorer=None):
    policy, tokenizer = make_policy(eos_bias=3.0)
    method = build_method(config, scorer)
    return list(generate(policy, tokenizer, PROMPTS, method, config)), tokenizer


def test_ends():
    free, tokenizer = run(DecodingConfig(seed=2, max_new_tokens=60))
    eos = tokenizer.eos_token_id
    assert all(one.token_ids[-1] == eos for one in free)
    longest, _ = run(DecodingConfig(seed=2, max_new_tokens=60, ignore_eos=True))
    for one, other in zip(free, longest, strict=True):
        assert len(other.token_ids) == 60
        assert other.finish_reason == "length"
        assert other.token_ids[: len(one.token_ids)] == one.token_ids
    character = tokenizer.decode(free[2].token_ids[2:3])
    by_id, _ = run(DecodingConfig(
        seed=2, max_new_tokens=60, stop_token_ids=[free[2].token_ids[2]]
    ))
    by_text, _ = run(DecodingConfig(seed=2, max_new_tokens=60, stop=character))
    for one, other in zip(by_id, by_text, strict=True):
        assert one.token_ids == other.token_ids
        assert one.completion == other.completion
        assert one.finish_reason == other.finish_reason
        assert character not in other.completion
    assert by_text[2].token_ids == free[2].token_ids[:3]
    assert by_text[2].finish_reason == "stop"
    # The last token of the longest response completes the stop string.
    last, _ = run(DecodingConfig(seed=2, max_new_tokens=3, stop=character))
    assert (last[2].finish_reason, last[2].stop_reason) == ("stop", character)
    assert last[2].completion == by_text[2].completion
    late, _ = run(DecodingConfig(seed=2, max_new_tokens=60, stop=character, min_tokens=5))
    assert all(len(one.token_ids) > 5 for one in late)
    assert any(character in one.completion for one in late)


def test_best_of_n_judges_what_is_given(folders):  # noqa: F811
    scorer, stops = make_scorer(folders["llama"], "scalar"), list("aeiouAEIOU0123456789")
    results, tokenizer = run(
        DecodingConfig(method="best_of_n", n=3, seed=2, max_new_tokens=60, stop=stops), scorer
    )
    cut = [tokenizer.decode(one.token_ids[-1:]) in stops for one in results]
    assert any(cut)
    for prompt, one, is_cut in zip(PROMPTS, results, cut, strict=True):
        assert not set(stops) & set(one.completion)
        given = one.token_ids[:-1] if is_cut else one.token_ids
        [reward] = scorer.score_ids(
            [tokenizer.encode(prompt)], [scorer.close_response(given, [0])]
        )
        assert one.reward == pytest.approx(float(reward), abs=1e-5)


@pytest.mark.parametrize("draft", ["none", "policy"])
def test_ids_that_the_tokenizer_lacks_are_not_drawn(draft):
    """A padded output layer has rows without a token, here the likeliest ones."""
    policy, tokenizer = make_policy(eos_bias=-50.0, vocab_size=len(make_policy()[1]) + 20)
    policy.get_output_embeddings().bias.data[len(tokenizer) :] = 20.0
    config = DecodingConfig(max_new_tokens=12, seed=2, draft=draft)
    results = list(generate(policy, tokenizer, PROMPTS, build_method(config), config))
    assert all(0 < max(one.token_ids) < len(tokenizer) for one in results)


@pytest.mark.parametrize("name", ["args", "pargs", "cd"])
def test_candidates_are_tokens_that_may_be_drawn(folders, name):  # noqa: F811
    """The policy's likeliest token ends the response, which min_tokens forbids."""
    scorer = make_scorer(folders["llama"], "scalar", {"args": ""}.get(name, "partial"))
    policy, tokenizer = make_policy(eos_bias=50.0)
    config = DecodingConfig(method=name, top_k=1, min_tokens=5, max_new_tokens=9, batch_size=2)
    for one in generate(policy, tokenizer, PROMPTS, build_method(config, scorer), config):
        assert len(one.token_ids) == 6
        assert tokenizer.eos_token_id not in one.token_ids[:5]


@pytest.mark.parametrize("wrong", [
    {"top_p": 1.1}, {"top_p": -0.1}, {"min_p": 2}, {"repetition_penalty": 0},
    {"presence_penalty": 3}, {"frequency_penalty": -2.5}, {"logit_bias": {3: 101}},
    {"min_tokens": -1}, {"stop": ""}, {"stop": ["a", ""]}, {"logit_bias": {"x": 1}},
])
def test_bounds(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DecodingConfig(**wrong)


@pytest.mark.parametrize(("settings", "part"), [
    ({"logit_bias": {100_000: 1.0}}, "logit_bias has the token id 100000"),
    ({"stop_token_ids": [-1]}, "stop_token_ids has the token id -1"),
])
def test_what_the_policy_cannot_do(settings, part):
    with pytest.raises(ConfigError, match=part):
        run(DecodingConfig(**settings))


SEARCHES = (
    "cards", "speculative_rejection", "beam", "dvts", "particle", "rsd", "gsi",
)


@pytest.mark.parametrize("name", SEARCHES)
def test_stop_strings_end_samples_of_strategies(folders, name):  # noqa: F811
    """Wherever tokens were taken back in between, also with strings of several tokens."""
    letters = "abcdefghijklmnop"
    stops = (*letters[:4], *("".join(two) for two in itertools.product(letters[4:], repeat=2)))
    config = DecodingConfig(
        method=name, stop=stops, seed=3, max_new_tokens=30, n=4, decision_tokens=3,
        reward_target=1.0, segment_tokens=4, segment_min=2, max_rejections=2, top_k=0,
        step_separator="", step_tokens=3, beam=2, branches=2, max_steps=10, accept_reward=0.0,
    )
    scorer, (policy, tokenizer) = make_scorer(folders["llama"], "scalar", ""), make_policy()
    small = TransformersEngine(make_policy("gpt2")[0], tokenizer, Bounds(places=12))
    drafter = small if name in ("rsd", "gsi") else None
    method = build_method(config, scorer, drafter=drafter)
    results = list(generate(policy, tokenizer, PROMPTS, method, config))
    stopped = [one for one in results if one.stop_reason in config.stop]
    assert stopped
    for prompt, one in zip(PROMPTS, results, strict=True):
        assert not any(stop in one.completion for stop in config.stop)
        if one in stopped:
            assert one.finish_reason == "stop"
            text = tokenizer.decode(one.token_ids, skip_special_tokens=True)
            assert text == one.completion + one.stop_reason
            # A character is a token.
            closed = scorer.close_response(one.token_ids[: -len(one.stop_reason)])
            [reward] = scorer.score_ids([tokenizer.encode(prompt)], [closed])
            assert one.reward == pytest.approx(float(reward), abs=1e-4)


def test_settings_survive_writing():
    config = DecodingConfig(**SETTINGS["all"], stop=["a", "b"], stop_token_ids=[3])
    for mode in ("python", "json"):
        assert DecodingConfig.model_validate(config.model_dump(mode=mode)) == config
    assert len({config, DecodingConfig(**config.model_dump())}) == 1
