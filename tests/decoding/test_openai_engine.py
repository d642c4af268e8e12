"""The openai engine against a server in this process."""

import asyncio
import logging
import random

import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.answer import run, scoring_beside
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.endpoint import Endpoint
from rewardsteer.decoding.engines.openai import OpenAIEngine
from rewardsteer.decoding.generate import build_method, generate_by, require_answers
from rewardsteer.decoding.methods import needs_goal
from rewardsteer.decoding.sample import Encoded, Stop
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from tests.decoding.completions_server import EOS, TOKENIZER, CompletionsServer
from tests.decoding.recorded import make_goal
from tests.fakes import character_tokenizer, save_tiny

PROMPTS = ["What is 7+8?", "a", "zz top"]
RUNS = {
    "none": {"method": "none"},
    "best_of_n": {"method": "best_of_n", "n": 4},
    "majority_vote": {"method": "majority_vote", "n": 4},
    "adaptive": {"method": "majority_vote", "n": 6, "vote_stop": "adaptive"},
    "speculative_rejection": {"method": "speculative_rejection", "n": 5, "decision_tokens": 3},
    "goal beam": {"method": "beam", "step_value": "goal", "beam": 2, "branches": 2,
                  "step_tokens": 9,
                  "max_steps": 4, "step_separator": " "},
    "beam": {"method": "beam", "beam": 2, "branches": 2, "step_tokens": 9, "max_steps": 4,
             "step_separator": " "},
    "dvts": {"method": "dvts", "beam": 2, "branches": 2, "step_tokens": 9, "step_separator": " "},
    "particle": {"method": "particle", "n": 3, "step_tokens": 9, "step_separator": " "},
    "goal_filter": {"method": "goal_filter", "n": 4, "drop_threshold": -0.1, "drop_start": 1},
    "goal_filter all": {"method": "goal_filter", "n": 3, "drop_threshold": 0.99, "drop_start": 1},
}


def generate(url, prompts, method, config, *, tokenizer=None, template=None):
    source = None if tokenizer is None else tokenizer.name_or_path
    engine = OpenAIEngine.open(source, tokenizer, config, url=url)
    return generate_by(engine, prompts, method, config, template=template)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    torch.manual_seed(3)
    folder = save_tiny(tmp_path_factory.mktemp("reward"), "llama", seed=7)
    model = RewardModel.from_base(folder, HeadConfig(kind="scalar")).eval()
    return Scorer(model, character_tokenizer(), Template(kind="text", append_eos=False))


def make_method(config, scorer):
    wants = needs_goal(config)
    goal = make_goal(scorer.hidden_size) if wants else None
    return build_method(config, None if config.method == "none" else scorer, goal)


def answers(server, scorer, *, tokenizer=TOKENIZER, batch_size=4, **settings):
    config = DecodingConfig(max_new_tokens=24, seed=2, batch_size=batch_size, **settings)
    method = make_method(config, scorer)
    return list(generate(server.url, PROMPTS, method, config, tokenizer=tokenizer))


@pytest.mark.parametrize(("name", "kind"), [
    (name, kind) for name, run in RUNS.items()
    for kind in ({}, {"ids": False}, {"ids": False, "logprobs": False})
    # It needs log-probabilities.
    if name != "goal beam" or "logprobs" not in kind
])
def test_strategies_answer_whatever_else_runs(scorer, name, kind):
    with CompletionsServer(**kind) as server:
        found = answers(server, scorer, **RUNS[name])
        again = answers(server, scorer, batch_size=1, **RUNS[name])
    for one, other in zip(found, again, strict=True):
        assert one.error is None, one.error
        assert one.finish_reason in ("stop", "length")
        alike = {"seconds"}
        assert one.model_dump(exclude={"cost"}) == other.model_dump(exclude={"cost"}) or (
            one.reward == pytest.approx(other.reward, abs=1e-5)
        )
        assert one.cost.model_dump(exclude=alike) == other.cost.model_dump(exclude=alike)
        assert one.cost.lm_calls >= one.cost.new_tokens > 0
        if not kind:
            text = TOKENIZER.decode(one.token_ids, skip_special_tokens=True)
            assert text == one.completion
            assert len(one.token_ids) == one.cost.new_tokens
        else:
            assert not one.token_ids
            assert len(one.completion) in (
                one.cost.new_tokens, one.cost.new_tokens - 1
            )


def test_texts_and_token_ids_give_the_same(scorer):
    """What a server that knows texts alone is asked and scored by is what ids say."""
    for name in ("best_of_n", "speculative_rejection", "goal beam", "goal_filter", "beam", "dvts",
                 "particle"):
        found = []
        for ids in (True, False):
            with CompletionsServer(ids=ids) as server:
                found.append(answers(server, scorer, min_tokens=2, **RUNS[name]))
        for one, other in zip(*found, strict=True):
            assert one.completion == other.completion, name
            assert one.finish_reason == other.finish_reason
            if one.reward is not None:
                assert one.reward == pytest.approx(other.reward, abs=1e-5)


def test_the_best_of_n_is_the_best(scorer):
    with CompletionsServer() as server:
        [one, *_] = answers(server, scorer, method="best_of_n", n=5)
        seeds = [body["seed"] for body in server.asked if "seed" in body]
        # Requests of several prompts arrive in any order.
        drawn = [
            server._written({"seed": body["seed"], "max_tokens": 24})[0] for body in server.asked
            if "seed" in body and body["prompt"] == TOKENIZER.encode(PROMPTS[0])
        ]
    assert len(drawn) == 5
    assert len(set(seeds)) == 15
    assert all(0 <= seed < 2**63 for seed in seeds)
    rewards = scorer.score_ids(
        [TOKENIZER.encode(PROMPTS[0])] * 5, [scorer.close_response(ids, {EOS}) for ids in drawn]
    )
    assert one.reward == pytest.approx(rewards.max(), abs=1e-5)
    assert one.token_ids in drawn
    assert one.cost.lm_tokens == sum(len(PROMPTS[0]) - 2 + len(ids) for ids in drawn)
    assert one.cost.lm_calls == sum(map(len, drawn))


def test_a_reward_model_with_another_tokenizer_reads_texts(tmp_path, scorer):
    other = Scorer(scorer.reward_model, character_tokenizer("".join(reversed(
        [chr(code) for code in range(33, 100)]
    )) + "abcd 123\n"), scorer.template)
    with CompletionsServer() as server:
        [one, *_] = answers(server, other, method="best_of_n", n=3)
    [reward] = other.score([PROMPTS[0]], [one.completion])
    assert one.token_ids
    assert one.reward == pytest.approx(reward, abs=1e-5)


def test_whole_responses_by_conversations(scorer):
    with CompletionsServer(completions=False) as server:
        for name in ("none", "best_of_n", "majority_vote"):
            found = answers(server, scorer, tokenizer=None, **RUNS[name])
            assert all(one.error is None for one in found)
            assert any(one.completion for one in found)
        assert {body["messages"][0]["content"] for body in server.asked} == set(PROMPTS)
        for tokenizer in (None, TOKENIZER):
            with pytest.raises(ConfigError, match=r"goes on with a response.*best_of_n, maj"):
                answers(server, scorer, tokenizer=tokenizer, **RUNS["speculative_rejection"])


def test_what_a_server_cannot_do_is_refused_first(scorer):
    cards = DecodingConfig(method="cards", reward_target=1.0)
    args = DecodingConfig(method="args")
    beam = DecodingConfig(**RUNS["goal beam"])
    with CompletionsServer(logprobs=False) as server:
        for config, missing in ((cards, "stops where the policy is unsure.*engine transformers,"),
                                (args, "likeliest next tokens by.*transformers or openai,"),
                                (beam, "log-probabilities")):
            method = make_method(config, scorer)
            with pytest.raises(ConfigError, match=missing):
                generate(server.url, PROMPTS, method, config, tokenizer=TOKENIZER)
        config = DecodingConfig(method="speculative_rejection", presence_penalty=1.0)
        with pytest.raises(ConfigError, match="extends responses"):
            generate(server.url, PROMPTS, make_method(config, scorer), config, tokenizer=TOKENIZER)


def test_settings_reach_the_server(scorer):
    settings = {"top_k": 7, "top_p": 0.9, "temperature": 0.5, "min_p": 0.1, "stop": ["3"],
                "repetition_penalty": 1.2, "logit_bias": {5: 1.0}, "min_tokens": 3,
                "stop_token_ids": [9], "presence_penalty": 0.5}
    with CompletionsServer() as server:
        found = answers(server, scorer, method="none", **settings)
        body = server.asked[-1]
    assert {name: body[name] for name in settings if name != "logit_bias"} == {
        name: value for name, value in settings.items() if name != "logit_bias"
    }
    assert body["logit_bias"] == {"5": 1.0}
    assert body["max_tokens"] == 24
    assert all("3" not in one.completion for one in found)
    assert any(one.stop_reason == "3" for one in found)
    with CompletionsServer(ids=False) as server:
        answers(server, scorer, method="none", mode="greedy")
        assert server.asked[-1]["temperature"] == 0
        assert not {"top_k", "min_p", "stop_token_ids", "return_token_ids"} & set(server.asked[-1])


async def _grown(engine, *steps):
    sample = engine.start(Encoded("r", TOKENIZER.encode("a b")), 0, DecodingConfig(
        max_new_tokens=40), rng=random.Random(1), log_probabilities=True, top=1)
    states = []
    for tokens, stop in steps:
        await sample.extend(tokens, stop=stop)
        states.append((sample.text, sample.length, sample.finish_reason, sample.log_probability))
    await engine.close()
    return sample, states


@pytest.mark.parametrize("ids", [True, False])
def test_an_extension_ends_with_its_separator(ids):
    with CompletionsServer(ids=ids) as server:
        engine = OpenAIEngine(Endpoint(server.url), TOKENIZER)
        sample, states = asyncio.run(_grown(engine, (20, Stop(text=" ")), (4, None), (None, None)))
    (first, *_), (second, *_), last = states
    assert first.endswith(" ")
    assert first.count(" ") == 1
    assert states[0][2] is None
    assert len(second) == len(first) + 4
    assert last[0].startswith(second)
    assert last[2] in ("stop", "length")
    tokens = TOKENIZER.encode(sample.text) + [EOS] * (last[2] == "stop")
    assert last[3] == pytest.approx(sum(-1.0 - token / 100 for token in tokens))
    assert len(sample.logprobs) == len(tokens)
    if ids:
        assert [one.best for one in sample.logprobs] == [
            [(token, -1.0 - token / 100)] for token in tokens
        ]


def test_text_is_told_while_it_grows():
    async def told(engine):
        pieces = []
        sample = engine.start(Encoded("r", TOKENIZER.encode("a")), 0, DecodingConfig(
            max_new_tokens=30, min_tokens=10), rng=random.Random(4))
        sample.listen(pieces.append)
        await sample.extend()
        await engine.close()
        return sample, pieces

    for ids in (True, False):
        with CompletionsServer(ids=ids) as server:
            engine = OpenAIEngine(Endpoint(server.url), TOKENIZER)
            sample, pieces = asyncio.run(told(engine))
        assert "".join(pieces) == sample.text
        assert len(pieces) > 2


def test_forks_draw_apart_and_revised_ones_go_on():
    async def forked(engine):
        sample = engine.start(Encoded("r", TOKENIZER.encode("a")), 0, DecodingConfig(
            max_new_tokens=40, ignore_eos=True), rng=random.Random(4))
        await sample.extend(6)
        forks = [sample.fork(n, random.Random(n)) for n in range(2)]
        await asyncio.gather(*(fork.extend(6) for fork in forks))
        sample.revise(sample.token_ids[:3])
        await sample.extend(2)
        await engine.close()
        return sample, forks

    with CompletionsServer() as server:
        engine = OpenAIEngine(Endpoint(server.url), TOKENIZER)
        sample, (one, other) = asyncio.run(forked(engine))
        prompts = [body["prompt"] for body in server.asked[1:]]
    assert one.token_ids[:6] == other.token_ids[:6]
    assert one.token_ids != other.token_ids
    assert prompts[-1] == [*TOKENIZER.encode("a"), *sample.token_ids[:3]]
    assert sample.length == 5
    assert one.origin is sample


def test_an_interrupted_strategy_leaves_no_request(scorer):
    async def interrupted(engine, method, config):
        scoring = scoring_beside(engine, method.scorer, config.batch_size)
        prompt = Encoded("r", TOKENIZER.encode("a"), given="a")
        task = asyncio.get_running_loop().create_task(run(engine, scoring, prompt, method, config))
        while server.running < 4:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(500):
            if not server.running:
                break
            await asyncio.sleep(0.01)
        await engine.close()

    config = DecodingConfig(method="best_of_n", n=6)
    with CompletionsServer() as server:
        engine = OpenAIEngine(Endpoint(server.url), TOKENIZER, places=4)
        server.seconds = 30.0
        asyncio.run(interrupted(engine, make_method(config, scorer), config))
        assert server.running == 0
        assert server.gone == 4
        # Those that waited for a place never came.
        assert len(server.asked) == 1 + 4


def test_results_that_nobody_wants_are_given_up(scorer):
    config = DecodingConfig(method="majority_vote", n=2, max_new_tokens=8)
    with CompletionsServer() as server:
        found = generate(server.url, ["a", *PROMPTS[:1]], make_method(config, scorer), config,
                         tokenizer=TOKENIZER)
        next(found)
        found.close()
        assert server.running == 0


def test_no_more_requests_at_a_time_than_the_batch_size(scorer):
    with CompletionsServer(seconds=0.05) as server:
        answers(server, scorer, batch_size=3, method="best_of_n", n=4)
    assert server.most == 3


def test_busy_servers_are_asked_again(scorer):
    def refuse(number):
        return {2: (429, {"retry-after": "1"}), 3: (503, {})}.get(number)

    with CompletionsServer(refuse=refuse) as server:
        found = answers(server, scorer, batch_size=1, method="none")
    assert all(one.error is None for one in found)
    assert len(server.asked) == 1 + 3 + 2


def test_one_refused_prompt_fails_alone(scorer, caplog):
    with CompletionsServer(refuse=lambda n: (400, {}) if n == 3 else None) as server, \
            caplog.at_level(logging.INFO):
        found = answers(server, scorer, batch_size=1, method="none")
    assert [one.error is None for one in found] == [True, False, True]
    assert "refuses this prompt: " in found[1].error
    assert "not now" in found[1].error
    assert not any(prompt in record.getMessage() for prompt in (PROMPTS[0], PROMPTS[2])
                   for record in caplog.records)


def test_servers_that_cannot_work_are_one_sentence(scorer, monkeypatch):
    monkeypatch.setenv("MY_KEY", "wrong")
    with CompletionsServer() as server:
        with pytest.raises(ConfigError, match=r"refuses the key.*MY_KEY"):
            Endpoint(server.url, key_env="MY_KEY")
        with pytest.raises(ConfigError, match="does not serve the model 'x'; it names these: m"):
            Endpoint(server.url, "x")
        config = DecodingConfig(max_new_tokens=500)
        with pytest.raises(DataError, match="exceeds the 200 that the policy can read"):
            generate(server.url, PROMPTS, make_method(config, None), config, tokenizer=TOKENIZER)
        monkeypatch.setenv("MY_KEY", "right")
        Endpoint(server.url, key_env="MY_KEY")
        assert server.keys[-1] == "Bearer right"
    with pytest.raises(ConfigError, match=r"cannot be reached.*ends in /v1"):
        Endpoint(server.url)
    with CompletionsServer() as server:
        slow = Endpoint(server.url, timeout=0.2)
        slow._client.max_retries = 0
        server.seconds = 5.0

        async def ask():
            async for _ in slow.ask({"prompt": "a"}, {"max_tokens": 1, "seed": 0}, stream=False):
                pass

        with pytest.raises(Exception, match=r"has not answered within 0.2 seconds"):
            asyncio.run(ask())


def test_a_stride_changes_nothing(scorer, monkeypatch):
    """Looking at sixteen tokens at once gives what looking at each does."""
    from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
    from rewardsteer.decoding.generate import generate as decode
    from tests.decoding.test_generate import make_policy

    policy, tokenizer = make_policy("llama", eos_bias=1.5)
    runs = [{"drop_threshold": -0.12, "drop_start": 2}, {"drop_threshold": 0.9, "drop_start": 1},
            {"drop_rule": "patience", "drop_patience": 2, "vote_stop": "esc", "vote_window": 2}]
    for settings in runs:
        config = DecodingConfig(method="goal_filter", n=6, top_k=0, max_new_tokens=40, **settings)
        found = []
        for stride in (1, 16):
            monkeypatch.setattr(TransformersEngine, "stride", stride)
            results = decode(policy, tokenizer, PROMPTS, make_method(config, scorer), config)
            found.append([one.token_ids for one in require_answers(results)])
        assert found[0] == found[1]


def test_likelihoods_that_a_server_does_not_give_are_one_sentence():
    async def asked(server):
        engine = OpenAIEngine(Endpoint(server.url), TOKENIZER)
        assert "likelihoods" not in engine.abilities
        await engine.likelihoods(Encoded("p", [5, 6])).of([], [[7]])

    with CompletionsServer() as server, pytest.raises(DataError, match="of 0 tokens, asked for"):
        asyncio.run(asked(server))
