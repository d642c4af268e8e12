"""Policies and reward models with different tokenizers: strategies judge texts, candidates are
tokenized anew, ids are mapped where both have the same tokens, and the rest is refused."""

import copy

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rewardsteer.data.template import Template
from rewardsteer.decoding.answering import Answers
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.detokenizer import response_text
from rewardsteer.decoding.engines.openai import OpenAIEngine
from rewardsteer.decoding.generate import build_method, generate, generate_by
from rewardsteer.decoding.mapped_scorer import token_map
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import MismatchError
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import TextScorer
from tests.decoding.completions_server import TOKENIZER, CompletionsServer
from tests.decoding.recorded import make_goal
from tests.fakes import CHARACTERS, character_tokenizer, tiny_causal_lm

PROMPTS = ["What is 7+8?", "é", "zz top"]
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
STRATEGIES = {
    "best_of_n": {"n": 4},
    "speculative_rejection": {"n": 4, "decision_tokens": 3},
    "beam": {"beam": 2, "branches": 2, "step_tokens": 3, "max_steps": 5},
    "dvts": {"beam": 2, "branches": 2, "step_tokens": 3, "max_steps": 5},
    "particle": {"n": 3, "step_tokens": 3, "weight": 3.0},
    "cards": {"reward_target": 0.5, "segment_tokens": 4, "max_rejections": 3,
              "entropy_threshold": 99.0},
    "majority_vote": {"n": 3},
}


def byte_tokenizer(merges=0):
    """Every token is a byte, but for some merged ones."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        ["what is the sum of seven and eight", "the top of the zz é ü", *ALPHABET] * 3,
        trainers.BpeTrainer(vocab_size=257 + merges, initial_alphabet=ALPHABET,
                            special_tokens=["<eos>"], show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>", padding_side="left",
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="module")
def policy():
    """Ends of texts, and both bytes of é, come often."""
    tokenizer = byte_tokenizer()
    model = tiny_causal_lm("llama", vocab_size=len(tokenizer), seed=0)
    head = torch.nn.Linear(model.lm_head.in_features, model.lm_head.out_features)
    head.weight, head.bias.data = model.lm_head.weight, torch.zeros(head.out_features)
    head.bias.data[tokenizer.encode("é" * 3 + "a b\n")] = 3.0
    head.bias.data[tokenizer.eos_token_id] = 2.0
    model.set_output_embeddings(head)
    return model.eval(), tokenizer


def make_scorer(folder, tokenizer, kind="scalar", objective="", **template):
    tiny_causal_lm("llama", vocab_size=len(tokenizer), seed=7).save_pretrained(folder)
    torch.manual_seed(3)
    model = RewardModel.from_base(folder, HeadConfig(kind=kind)).eval()
    return Scorer(model, tokenizer, Template(kind="text", **template), objective=objective)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """Of merged tokens."""
    return make_scorer(tmp_path_factory.mktemp("merged"), byte_tokenizer(merges=30))


def run(policy, scorer, method, *, goal=None, prompts=PROMPTS, **values):
    config = DecodingConfig(**{"method": method, "max_new_tokens": 14, "seed": 2, **values})
    chosen = build_method(config, scorer if method != "majority_vote" else None, goal)
    return list(generate(*policy, prompts, chosen, config))


def contents(results):
    return [(one.token_ids, one.completion, one.finish_reason, one.error) for one in results]


# --- strategies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", STRATEGIES)
def test_strategies_judge_texts(policy, scorer, method, monkeypatch):
    seen, plain = [], Scorer.encode

    def spy(self, prompts, completions, **options):
        seen.extend((text, options["closed"]) for text in completions)
        return plain(self, prompts, completions, **options)

    monkeypatch.setattr(Scorer, "encode", spy)
    results = run(policy, scorer, method, **STRATEGIES[method])
    assert all(one.error is None for one in results)
    if method == "majority_vote":
        return
    assert seen
    assert not any(text.endswith("\ufffd") for text, closed in seen if not closed)
    rewards = scorer.score(PROMPTS, [one.completion for one in results])
    for one, reward in zip(results, rewards, strict=True):
        assert one.cost.rm_calls > 0
        assert one.cost.rm_tokens >= one.cost.rm_forwards > 0
        if one.finish_reason == "stop":
            assert one.reward == pytest.approx(reward, abs=1e-4)
    alone = run(policy, scorer, method, batch_size=1, **STRATEGIES[method])
    assert contents(alone) == contents(results)


@pytest.mark.parametrize("method", [name for name in STRATEGIES if name != "majority_vote"])
def test_growing_reads_are_whole_reads(policy, scorer, method, monkeypatch):
    results = run(policy, scorer, method, **STRATEGIES[method])
    monkeypatch.setattr(Answers, "_grows", lambda *_: False)
    whole = run(policy, scorer, method, **STRATEGIES[method])
    assert contents(results) == contents(whole)
    for one, other in zip(results, whole, strict=True):
        assert one.reward == pytest.approx(other.reward, abs=1e-4)
        assert one.cost.rm_calls == other.cost.rm_calls
        assert one.cost.rm_tokens <= other.cost.rm_tokens
    if method != "best_of_n":
        assert sum(one.cost.rm_tokens for one in results) < sum(
            one.cost.rm_tokens for one in whole
        )


def test_goals_of_another_tokenizer(policy, scorer, monkeypatch):
    goal = make_goal(scorer.hidden_size)
    settings = STRATEGIES["beam"] | {"weight": 3.0}
    results = run(policy, scorer, "beam", goal=goal, **settings)
    assert all(one.cost.rm_calls for one in results)
    dropped = run(policy, scorer, "goal_filter", goal=goal, n=4, drop_threshold=0.0, drop_start=1)
    assert all(one.error is None for one in dropped)
    monkeypatch.setattr(Answers, "_grows", lambda *_: False)
    assert contents(run(policy, scorer, "beam", goal=goal, **settings)) == contents(results)


def test_prompts_given_as_ids_are_read_as_texts(policy, scorer):
    ids = policy[1].encode("zz top")
    [one] = run(policy, scorer, "best_of_n", n=3,
                prompts=[Request(id="0", prompt="", prompt_ids=ids)])
    [reward] = scorer.score(["zz top"], [one.completion])
    assert one.reward == pytest.approx(reward, abs=1e-4)


def test_a_text_that_is_too_long_fails_alone(policy, scorer, monkeypatch):
    limit = len(scorer.tokenizer.encode(PROMPTS[0])) + 2
    monkeypatch.setattr(Scorer, "position_limit", limit)
    results = run(policy, scorer, "best_of_n", n=3, prompts=["é", "zz top " * 9])
    assert results[1].error is not None
    assert f"reads at most {limit}" in results[1].error


class Vowels(TextScorer):
    """Judges texts alone: the share of a's, less 1 for responses that go on."""

    name = "vowels"

    def __init__(self):
        self.asked = []

    def score(self, prompts, completions, *, batch_size=16, closed=True):
        self.asked += [(text, closed) for text in completions]
        return np.array([
            text.count("a") / max(1, len(text)) - (not closed) for text in completions
        ])


@pytest.mark.parametrize("method", [name for name in STRATEGIES if name != "majority_vote"])
def test_reward_models_that_judge_texts(policy, method):
    judge = Vowels()
    results = run(policy, judge, method, **STRATEGIES[method])
    assert all(one.error is None for one in results)
    for one in results:
        share = one.completion.count("a") / max(1, len(one.completion))
        assert one.reward == pytest.approx(share if one.finish_reason else share - 1)
        assert one.cost.rm_calls == one.cost.rm_forwards > 0
        assert one.cost.rm_tokens > one.cost.rm_calls
    assert {closed for _, closed in judge.asked} == ({True} if method == "best_of_n"
                                                     else {True, False})
    assert not any(text.endswith("\ufffd") for text, closed in judge.asked if not closed)


@pytest.mark.parametrize("method", ["args", "farma", "pargs", "goal_filter"])
def test_what_judges_texts_guides_no_tokens(method):
    config = DecodingConfig(method=method)
    with pytest.raises(MismatchError, match=r"judges texts alone; use it with adaptive_"):
        build_method(config, Vowels(), make_goal(4))


def test_a_goal_needs_states():
    with pytest.raises(MismatchError, match=r"judges texts alone; leave out the goal"):
        build_method(DecodingConfig(method="beam"), Vowels(), make_goal(4))


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("method", ["best_of_n", "beam", "dvts", "particle"])
def test_over_an_address(scorer, method, ids):
    settings = {"step_separator": " "} | STRATEGIES[method]
    config = DecodingConfig(method=method, max_new_tokens=14, seed=2, **settings)
    with CompletionsServer(ids=ids) as server:
        engine = OpenAIEngine.open(None, TOKENIZER, config, url=server.url)
        results = list(generate_by(engine, ["a", "zz top"], build_method(config, scorer), config))
    rewards = scorer.score(["a", "zz top"], [one.completion for one in results])
    for one, reward in zip(results, rewards, strict=True):
        assert one.error is None
        if one.finish_reason == "stop" or method == "best_of_n":
            assert one.reward == pytest.approx(reward, abs=1e-4)


# --- guides ---------------------------------------------------------------------------------------


@torch.no_grad()
def plain_args(policy, scorer, prompt, config):
    """Every candidate's text read anew."""
    model, tokenizer = policy
    ids, found = tokenizer.encode(prompt), []
    while len(found) < config.max_new_tokens:
        logits = model(torch.tensor([[*ids, *found]])).logits[0, -1]
        best, tokens = logits.topk(config.top_k)
        rewards = []
        for token in tokens.tolist():
            ends = token == tokenizer.eos_token_id
            text = response_text(tokenizer, ids, found if ends else [*found, token], Template(
                kind="text"
            )).rstrip("\ufffd")
            rows = scorer.encode([prompt], [text], closed=ends)
            rewards.append(scorer.score_ids(*rows)[0])
        scores = best + config.weight * torch.tensor(rewards)
        found.append(int(tokens[scores.argmax()]))
        if found[-1] == tokenizer.eos_token_id:
            break
    return found


@pytest.mark.parametrize(("method", "objective"), [
    ("args", ""), ("pargs", "partial"), ("cd", "partial"),
])
def test_candidates_are_tokenized_anew(policy, tmp_path, method, objective):
    scorer = make_scorer(tmp_path, byte_tokenizer(merges=30), objective=objective)
    settings = {"mode": "greedy", "top_k": 5, "weight": 4.0, "max_new_tokens": 8}
    results = run(policy, scorer, method, **settings)
    config = DecodingConfig(method=method, **settings)
    for prompt, one in zip(PROMPTS, results, strict=True):
        assert one.token_ids == plain_args(policy, scorer, prompt, config)
        assert one.cost.rm_calls == 5 * len(one.token_ids)
        assert one.cost.rm_forwards == 2 * len(one.token_ids)
        assert one.cost.rm_tokens > one.cost.rm_forwards
    assert contents(run(policy, scorer, method, batch_size=1, **settings)) == contents(results)
    free = run(policy, scorer, method, **{**settings, "weight": 0.0})
    assert [one.token_ids for one in free] != [one.token_ids for one in results]


def permuted(scorer, tokenizer):
    """The same reward model with its tokens under the ids of another tokenizer."""
    ids = token_map(tokenizer, scorer.tokenizer)
    model = copy.deepcopy(scorer.reward_model)
    carrier = model.carrier
    order = torch.tensor(ids)
    with torch.no_grad():
        embedding = carrier.get_input_embeddings().weight
        embedding.copy_(embedding.clone()[order])
        output = carrier.get_output_embeddings() if model.head.gives_next_token else None
        if output is not None and output.weight is not embedding:
            output.weight.copy_(output.weight.clone()[order])
    return Scorer(model, tokenizer, scorer.template, objective=scorer.objective)


@pytest.mark.parametrize(("method", "kind", "objective"), [
    ("farma", "vocabulary", ""), ("genarm", "vocabulary", "autoregressive"), ("args", "scalar", ""),
])
@pytest.mark.parametrize("mode", ["greedy", "sample"])
def test_the_same_tokens_under_other_ids(tmp_path, method, kind, objective, mode):
    own, other = character_tokenizer(), character_tokenizer(CHARACTERS[::-1])
    policy = tiny_causal_lm("llama", vocab_size=len(own), seed=0).eval(), own
    same = make_scorer(tmp_path, own, kind, objective)
    settings = {"mode": mode, "top_k": 6, "weight": 3.0, "max_new_tokens": 10,
                "prompts": ["What is 7+8?", "a"]}
    results = run(policy, same, method, **settings)
    mapped = run(policy, permuted(same, other), method, **settings)
    assert contents(mapped) == contents(results)
    for one, two in zip(results, mapped, strict=True):
        assert one.cost.model_copy(update={"seconds": 0.0}) == two.cost.model_copy(
            update={"seconds": 0.0}
        )


def test_tokens_are_mapped_by_their_strings_and_special_ones_by_their_task():
    own, other = character_tokenizer(), character_tokenizer(CHARACTERS[::-1])
    ids = token_map(own, other)
    for text in CHARACTERS:
        assert [ids[token] for token in own.encode(text)] == other.encode(text)
    assert ids[own.eos_token_id] == other.eos_token_id
    assert token_map(own, character_tokenizer(CHARACTERS[1:])) is None
    lacking = character_tokenizer(pad_is_eos=True)
    assert token_map(own, lacking)[own.pad_token_id] == lacking.eos_token_id


def test_vocabularies_with_other_tokens_are_refused(policy, tmp_path):
    scorer = make_scorer(tmp_path, byte_tokenizer(merges=30), "vocabulary")
    with pytest.raises(MismatchError, match=r"use best_of_n or beam, which judge texts, or args"):
        run(policy, scorer, "farma")
