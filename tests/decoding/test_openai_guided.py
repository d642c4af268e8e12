"""Candidate guides on the likeliest tokens that a server names: the same answers as with the
policy's own logits."""

import asyncio

import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.endpoint import Endpoint
from rewardsteer.decoding.engines.openai import OpenAIEngine
from rewardsteer.decoding.generate import build_method, generate, generate_by
from rewardsteer.decoding.running import in_order
from rewardsteer.decoding.sample import Encoded
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.errors import ConfigError
from tests.decoding.completions_server import TOKENIZER, CompletionsServer
from tests.decoding.test_generate import make_policy, make_scorer
from tests.decoding.test_other_tokenizers import byte_tokenizer
from tests.decoding.test_other_tokenizers import make_scorer as with_tokenizer
from tests.fakes import save_tiny
from tests.serving.running import client, make_service, running

PROMPTS = ["What is 7+8?", "a", "zz top"]
GREEDY = {"mode": "greedy", "top_k": 6, "weight": 5.0}
SAMPLE = {"mode": "sample", "top_k": 5, "weight": 2.0, "temperature": 0.7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("reward"), "llama", seed=7)


@pytest.fixture(scope="module")
def policy():
    return make_policy("llama", eos_bias=1.0)


@pytest.fixture(scope="module")
def url(folder):
    """A server of the policy alone."""
    with running(make_service(folder, head=None, method="none")) as (address, _):
        yield f"{address}/v1"


def test_a_server_with_a_reward_model_has_one_policy(folder):
    """Its list also names the reward model, and the policy with each method."""
    with running(make_service(folder, head="scalar", method="none")) as (address, _):
        assert Endpoint(f"{address}/v1").model == "tiny"


def both(url, policy, scorer, method, *, prompts=PROMPTS, **settings):
    """Answers over the address, and those of the transformers engine."""
    config = DecodingConfig(**{"method": method, "max_new_tokens": 8, "seed": 3, **settings})
    engine = OpenAIEngine.open(None, policy[1], config, url=url)
    engine.settings = policy[0].generation_config
    there = list(generate_by(engine, prompts, build_method(config, scorer), config))
    here = list(generate(*policy, prompts, build_method(config, scorer), config))
    return there, here


def contents(results):
    return [
        (one.token_ids, one.completion, one.finish_reason, one.stop_reason, one.error)
        for one in results
    ]


def rewards_read(results):
    return [(one.cost.new_tokens, one.cost.lm_calls, one.cost.rm_calls, one.cost.guided_steps)
            for one in results]


@pytest.mark.parametrize(("method", "objective"), [
    ("args", ""), ("pargs", "partial"), ("cd", "partial"),
])
@pytest.mark.parametrize("settings", [GREEDY, SAMPLE], ids=["greedy", "sample"])
def test_answers_are_those_of_the_transformers_engine(url, policy, folder, method, objective,
                                                      settings):
    scorer = make_scorer(folder, "scalar", objective, Template())
    there, here = both(url, policy, scorer, method, **settings)
    assert contents(there) == contents(here)
    assert rewards_read(there) == rewards_read(here)
    assert all(one.cost.rm_tokens > 0 for one in there)
    free = settings | {"method": method, "weight": 0.0, "max_new_tokens": 8, "seed": 3}
    config = DecodingConfig(**free)
    plain = list(generate(*policy, PROMPTS, build_method(config, scorer), config))
    assert contents(plain) != contents(there)


@pytest.mark.parametrize("settings", [
    {"stop": ["1", "+ 2"], "logit_bias": ((5, 3.0), (9, -4.0)), "target_kl": 0.3},
    {"min_tokens": 6, "presence_penalty": 1.5, "frequency_penalty": 0.5, "top_p": 0.6},
    {"weight_schedule": "linear", "weight_end": 0.0, "ignore_eos": True, "min_p": 0.2},
    {"batch_size": 1, "policy_power": 1.5},
], ids=lambda one: "-".join(one))
def test_settings_count_as_in_the_transformers_engine(url, policy, folder, settings):
    scorer = make_scorer(folder, "scalar", "", Template())
    there, here = both(url, policy, scorer, "args", **SAMPLE | settings)
    assert contents(there) == contents(here)


def test_a_reward_model_with_another_tokenizer(url, policy, tmp_path):
    scorer = with_tokenizer(tmp_path, byte_tokenizer(merges=30))
    there, here = both(url, policy, scorer, "args", **GREEDY)
    assert contents(there) == contents(here)
    assert all(one.cost.rm_calls == 6 * len(one.token_ids) for one in there)


def test_several_reward_models(url, policy, folder):
    from rewardsteer.decoding.ensemble import RewardEnsemble

    scorers = [make_scorer(folder, "scalar", "", Template()) for _ in range(2)]
    there, here = both(url, policy, RewardEnsemble(scorers, [1.0, -0.5]), "args", **GREEDY)
    assert contents(there) == contents(here)


def test_log_probabilities_and_text_while_it_grows(url, policy, folder):
    scorer = make_scorer(folder, "scalar", "", Template())
    config = DecodingConfig(method="args", max_new_tokens=6, ignore_eos=True, **GREEDY)
    engine = OpenAIEngine(Endpoint(url), policy[1], policy[0].generation_config)
    ids, told = policy[1].encode(PROMPTS[0]), []

    async def program():
        sample = engine.start(
            Encoded("r", ids, given=PROMPTS[0]), 0, config, rng=row_generator(0, "r", 0),
            guide=build_method(config, scorer), log_probabilities=True, top=2,
        )
        sample.listen(told.append)
        await sample.extend(2)
        await sample.extend()
        return sample

    [sample] = in_order([program], engine.room, engine.close, most=1)
    with torch.no_grad():
        logits = policy[0](torch.tensor([[*ids, *sample.token_ids]])).logits[0, len(ids) - 1 : -1]
    known = logits.log_softmax(dim=-1)
    own = known.gather(1, torch.tensor(sample.token_ids)[:, None])
    assert sample.log_probability == pytest.approx(float(own.sum()), abs=1e-4)
    assert [one.value for one in sample.logprobs] == pytest.approx(own[:, 0].tolist(), abs=1e-5)
    for one, row in zip(sample.logprobs, known, strict=True):
        assert [token for token, _ in one.best] == row.topk(2).indices.tolist()
    assert "".join(told) == sample.text
    assert len(told) > 1


def test_forks_go_on_and_tokens_can_be_taken_back(url, policy, folder):
    scorer = make_scorer(folder, "scalar", "", Template())
    config = DecodingConfig(method="args", max_new_tokens=8, ignore_eos=True, **GREEDY)
    engine = OpenAIEngine(Endpoint(url), policy[1], policy[0].generation_config)

    async def program():
        sample = engine.start(
            Encoded("r", policy[1].encode("a"), given="a"), 0, config,
            rng=row_generator(0, "r", 0), guide=build_method(config, scorer),
        )
        await sample.extend(4)
        fork = sample.fork(1, row_generator(0, "r", 1))
        await sample.extend()
        whole = list(sample.token_ids)
        sample.revise(whole[:3])
        await asyncio.gather(fork.extend(), sample.extend())
        return whole, fork.token_ids, sample.token_ids

    [(whole, forked, again)] = in_order([program], engine.room, engine.close, most=1)
    assert len(whole) == 8
    assert forked == whole == again


def test_a_row_fails_alone(url, policy, folder, monkeypatch):
    scorer = make_scorer(folder, "scalar", "", Template())
    plain = type(scorer).candidates
    bad = policy[1].encode("zz")[0]

    def sometimes(self, ids, mask, tokens, cache):
        rewards = plain(self, ids, mask, tokens, cache)
        return rewards.masked_fill((ids == bad).any(dim=1, keepdim=True), torch.nan)

    monkeypatch.setattr(type(scorer), "candidates", sometimes)
    config = DecodingConfig(method="args", max_new_tokens=5, **GREEDY)
    engine = OpenAIEngine.open(None, policy[1], config, url=url)
    found = list(generate_by(engine, PROMPTS, build_method(config, scorer), config))
    assert found[0].error is None
    assert "NaN or infinite rewards at step 1 of row '2'" in found[2].error


def all_at_once(url, tokenizer, scorer):
    """Answers to prompts whose first tokens the reward model is asked about together."""
    config = DecodingConfig(method="args", max_new_tokens=5, ignore_eos=True, **GREEDY)
    engine = OpenAIEngine.open(None, tokenizer, config, url=url)
    guide = build_method(config, scorer)

    async def program(prompt):
        sample = engine.start(
            Encoded(prompt, tokenizer.encode(prompt), given=prompt), 0, config,
            rng=row_generator(0, prompt, 0), guide=guide,
        )
        await sample.extend()
        return sample.token_ids

    async def held():
        """The reward model is busy until all samples wait for it."""
        async with engine.guiding:
            while len(engine.rows_of(guide)._waiting) < len(PROMPTS):
                await asyncio.sleep(0.01)

    async def run():
        running = [asyncio.create_task(program(prompt)) for prompt in PROMPTS]
        await asyncio.wait_for(held(), 60)
        try:
            return await asyncio.gather(*running, return_exceptions=True)
        finally:
            await engine.close()

    found = asyncio.run(run())
    assert not engine._guided, "a cache outlives its samples"
    return found


def test_samples_that_wait_are_read_together(url, policy, folder, monkeypatch):
    scorer = make_scorer(folder, "scalar", "", Template())
    plain, sizes = type(scorer).candidates, []

    def counted(self, ids, mask, tokens, cache):
        sizes.append(len(ids))
        return plain(self, ids, mask, tokens, cache)

    monkeypatch.setattr(type(scorer), "candidates", counted)
    found = all_at_once(url, policy[1], scorer)
    assert sizes[0] == len(PROMPTS)
    assert sum(sizes) == 5 * len(PROMPTS), "a row is asked about once for each token"
    here, _ = both(url, policy, scorer, "args", max_new_tokens=5, ignore_eos=True, **GREEDY)
    assert found == [one.token_ids for one in here]


def test_what_fails_a_batch_fails_one_row(url, policy, folder, monkeypatch):
    scorer = make_scorer(folder, "scalar", "", Template())
    whole = all_at_once(url, policy[1], scorer)
    plain, bad = type(scorer).candidates, policy[1].encode("zz")[0]

    def sometimes(self, ids, mask, tokens, cache):
        if bool((ids == bad).any()):
            raise RuntimeError("the device is gone")
        return plain(self, ids, mask, tokens, cache)

    monkeypatch.setattr(type(scorer), "candidates", sometimes)
    *others, last = all_at_once(url, policy[1], scorer)
    assert str(last) == "the device is gone"
    assert others == whole[:-1]


def test_an_interrupted_response_leaves_no_request(folder):
    scorer = make_scorer(folder, "scalar", "", Template())
    config = DecodingConfig(method="args", **GREEDY)

    async def interrupted(engine):
        sample = engine.start(
            Encoded("r", TOKENIZER.encode("a"), given="a"), 0, config,
            rng=row_generator(0, "r", 0), guide=build_method(config, scorer),
        )
        task = asyncio.get_running_loop().create_task(sample.extend())
        while not server.running:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while server.running:
            await asyncio.sleep(0.01)
        await engine.close()

    with CompletionsServer() as server:
        engine = OpenAIEngine(Endpoint(server.url), TOKENIZER)
        server.seconds = 30.0
        asyncio.run(asyncio.wait_for(interrupted(engine), 20))
        assert server.gone == 1


# --- what does not work ---------------------------------------------------------------------------


def refusal(url, tokenizer, scorer, **settings):
    config = DecodingConfig(method="args", **settings)
    engine = OpenAIEngine.open(None, tokenizer, config, url=url)
    with pytest.raises(ConfigError) as caught:
        generate_by(engine, PROMPTS, build_method(config, scorer), config)
    return str(caught.value)


def test_what_cannot_be_had_is_refused_before_anything_runs(url, policy, folder):
    scorer = make_scorer(folder, "scalar", "", Template())
    tokenizer = policy[1]
    told = refusal(url, tokenizer, scorer, gate="top1", gate_threshold=0.5)
    assert "leave out the gate" in told
    told = refusal(url, tokenizer, scorer, repetition_penalty=1.2)
    assert "set it to 1" in told
    told = refusal(url, tokenizer, scorer, top_k=21)
    assert "does not name the 21 likeliest tokens" in told
    assert "lower top_k" in told
    told = refusal(url, tokenizer, scorer, logit_bias=((999_999, 1.0),))
    assert "999999" in told


@pytest.mark.parametrize("kind", [{"ids": False}, {"logprobs": False}, {"named": False}])
def test_servers_that_name_no_tokens_by_id(folder, kind):
    scorer = make_scorer(folder, "scalar", "", Template())
    with CompletionsServer(**kind) as server:
        told = refusal(server.url, TOKENIZER, scorer)
    assert "names the likeliest next tokens by their ids" in told
    assert "use the engine transformers" in told
    assert "best_of_n" in told


def test_servers_that_name_fewer_tokens_than_asked(folder):
    scorer = make_scorer(folder, "scalar", "", Template())
    with CompletionsServer() as server:
        told = refusal(server.url, TOKENIZER, scorer, top_k=5)
    assert "names 2 of the 5 likeliest tokens; lower top_k by 3" in told


def test_our_server_names_tokens_by_id(url, policy):
    """In both forms; texts stay the default."""
    body = {"model": "tiny", "max_tokens": 2, "temperature": 0, "return_token_ids": True}
    with client(url) as http:
        for by_id in (True, False):
            named = {"return_tokens_as_token_ids": by_id}
            one = http.post("/completions", json={
                **body, **named, "prompt": "ab", "logprobs": 3,
            }).json()["choices"][0]
            names = one["logprobs"]["tokens"]
            texts = [policy[1].decode([token]) for token in one["token_ids"]]
            ids = [f"token_id:{token}" for token in one["token_ids"]]
            assert names == (ids if by_id else texts)
            assert all(name.startswith("token_id:") == by_id
                       for best in one["logprobs"]["top_logprobs"] for name in best)
            two = http.post("/chat/completions", json={
                **body, **named, "messages": [{"role": "user", "content": "ab"}],
                "logprobs": True, "top_logprobs": 2,
            }).json()["choices"][0]
            for token, told in zip(two["token_ids"], two["logprobs"]["content"], strict=True):
                text = policy[1].decode([token])
                assert told["token"] == (f"token_id:{token}" if by_id else text)
                assert bytes(told["bytes"]).decode() == text
                assert told["top_logprobs"][0]["token"].startswith("token_id:") == by_id
