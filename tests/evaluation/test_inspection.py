"""Inspections against a plain reference that reads every prefix anew."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.ensemble import RewardEnsemble
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.evaluation.divergence import distances, response_kl
from rewardsteer.evaluation.inspected_columns import token_texts
from rewardsteer.evaluation.inspection import (
    FilterRule,
    as_read,
    inspect_completion,
)
from rewardsteer.evaluation.inspection_records import Inspection
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from tests.fakes import character_tokenizer, save_tiny, tiny_causal_lm

PROMPT, COMPLETION = "7+8=", "15, he said."


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    tokenizer = character_tokenizer()
    policy = tiny_causal_lm(vocab_size=len(tokenizer), seed=1)
    base = save_tiny(tmp_path_factory.mktemp("base"), seed=2)
    scorers = {
        kind: Scorer(
            RewardModel.from_base(base, HeadConfig(kind=kind)),
            tokenizer, Template(append_eos=False), objective="bradley_terry", name=kind,
        )
        for kind in ("scalar", "vocabulary")
    }
    ids = [tokenizer(text)["input_ids"] for text in (PROMPT, COMPLETION)]
    return policy, tokenizer, scorers, *ids


def look(world, kind, name="farma", *, config=None, **options):
    policy, tokenizer, scorers, prompt, completion = world
    config = config or DecodingConfig(method=name, weight=1.5, temperature=0.7, top_k=5)
    method = build_method(config, scorers[kind])
    return inspect_completion(
        policy, tokenizer, scorers[kind], method, prompt, completion, config=config, **options
    )


@torch.no_grad()
def logits_before(model, prompt, completion, index):
    ids = torch.tensor([[*prompt, *completion[:index]]])
    return model(input_ids=ids).logits[0, -1].double()


def test_farma_agrees_with_reading_anew(world):
    policy, _, scorers, prompt, completion = world
    found = look(world, "vocabulary")
    assert found.completion == COMPLETION
    assert found.prompt == PROMPT
    assert [one.text for one in found.tokens] == list(COMPLETION)
    rewards = scorers["vocabulary"].token_scores_ids([prompt], [completion])[0].rewards
    for index, token in enumerate(found.tokens):
        plain = logits_before(policy, prompt, completion, index)
        told = logits_before(scorers["vocabulary"].reward_model.carrier, prompt, completion, index)
        p = (plain / 0.7).softmax(-1)
        g = ((plain + 1.5 * told) / 0.7).softmax(-1)
        assert token.reward == pytest.approx(rewards[index], abs=1e-5)
        assert token.kl == pytest.approx(float((g * (g / p).log()).sum()), abs=1e-4)
        assert token.moved == pytest.approx(float((g - p).abs().sum() / 2), abs=1e-4)
        for column, values in (
            (token.policy, p), (token.reward_model, told), (token.guided, g)
        ):
            order = values.argsort(descending=True).tolist()
            assert [one.token_id for one in column[:6]] == order[:6]
            assert [one.rank for one in column[:6]] == [1, 2, 3, 4, 5, 6]
            by_id = {one.token_id: one for one in column}
            taken = by_id[completion[index]]
            assert taken.rank == 1 + order.index(completion[index])
            assert taken.value == pytest.approx(float(values[completion[index]]), abs=1e-4)
        # What a vocabulary head says before a token is the reward once it is there.
        assert next(
            one.value for one in token.reward_model if one.token_id == completion[index]
        ) == pytest.approx(token.reward, abs=1e-4)


def test_candidates_of_a_scalar_head(world):
    policy, _, scorers, prompt, completion = world
    found = look(world, "scalar", "args")
    scorer = scorers["scalar"]
    for index in (0, 5):
        token = found.tokens[index]
        plain = logits_before(policy, prompt, completion, index)
        asked = list(dict.fromkeys([*plain.topk(6).indices.tolist(), completion[index]]))
        rewards = scorer.score_ids(
            [prompt] * len(asked), [[*completion[:index], one] for one in asked]
        )
        expected = dict(zip(asked, rewards, strict=True))
        assert {one.token_id: one.value for one in token.reward_model} == pytest.approx(
            expected, abs=1e-4
        )
        values = [one.value for one in token.reward_model]
        assert values == sorted(values, reverse=True)
        # Of the five candidates alone, with the policy renormalised on them.
        best = plain.topk(5).indices
        p = (plain[best] / 0.7).softmax(-1)
        asked_of = scorer.score_ids(
            [prompt] * 5, [[*completion[:index], one] for one in best.tolist()]
        )
        g = ((plain[best] + 1.5 * torch.tensor(asked_of)) / 0.7).softmax(-1)
        assert token.kl == pytest.approx(float((g * (g / p).log()).sum()), abs=1e-4)
        assert len([one for one in token.guided if one.value > 0]) == 5


def test_the_prompt_is_shown_as_it_was_read_with_the_marks_of_its_turns(world):
    policy, tokenizer, scorers, prompt, completion = world
    marked = [tokenizer.eos_token_id, *prompt]
    found = look((policy, tokenizer, scorers, marked, completion), "vocabulary")
    assert found.prompt == tokenizer.eos_token + PROMPT
    assert found.completion == COMPLETION


@pytest.mark.parametrize(("kind", "name"), [("vocabulary", "farma"), ("scalar", "args")])
def test_weight_zero_moves_nothing(world, kind, name):
    found = look(world, kind, name, config=DecodingConfig(method=name, weight=0, top_k=5))
    assert [(one.kl, one.moved) for one in found.tokens] == [pytest.approx((0, 0), abs=1e-9)] * 12


def test_methods_that_guide_no_tokens_leave_the_third_column_empty(world):
    for kind, name in (("scalar", "none"), ("scalar", "best_of_n")):
        found = look(world, kind, name)
        assert found.method == name
        for token in found.tokens:
            assert token.guided == []
            assert token.kl is None
            assert token.policy
            assert token.reward_model


def test_distances():
    plain = torch.tensor([0.5, 0.25, 0.25]).double().log()
    guided = torch.tensor([0.0, 0.75, 0.25]).double().log()
    kl, moved = distances(guided, plain)
    # The policy on the two that are possible is one half each.
    assert moved == pytest.approx(0.25)
    assert kl == pytest.approx(0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log())
    assert distances(plain, plain) == (0, 0)


def test_kl_of_a_response_is_the_sum_over_its_tokens(world):
    policy, _, scorers, prompt, completion = world
    config = DecodingConfig(method="farma", weight=1.5, temperature=0.7, top_k=5)
    method = build_method(config, scorers["vocabulary"])
    found = look(world, "vocabulary", config=config)
    total = response_kl(policy, method, prompt, completion, config)
    assert total == pytest.approx(sum(token.kl for token in found.tokens))
    assert total > 0.01
    plain = DecodingConfig(method="none")
    assert response_kl(policy, build_method(plain), prompt, completion, plain) == 0


def test_similarities_and_where_a_filter_stops(world):
    *_, scorers, prompt, completion = world
    goal = GoalState(
        "g", torch.randn(1, 32, generator=torch.Generator().manual_seed(0)),
        Provenance(kind="mean", model_fingerprint=""),
    )
    expected = scorers["scalar"].token_scores_ids([prompt], [completion], goal=goal)[0].similarities
    threshold = float(sorted(expected[3:])[2])
    found = look(world, "scalar", "none", goal=goal,
                 rule=FilterRule("similarity", threshold, start=3))
    assert [one.similarity for one in found.tokens] == pytest.approx(expected, abs=1e-5)
    index = next(i for i, value in enumerate(expected) if i >= 3 and value < threshold)
    assert found.stop.index == index
    never = look(world, "scalar", "none", goal=goal, rule=FilterRule("similarity", -1.0))
    assert never.stop.index is None
    short = look(world, "scalar", "none", rule=FilterRule("reward", 1e9, start=99))
    assert short.stop.index is None
    always = look(world, "scalar", "none", rule=FilterRule("reward", 1e9, start=2))
    assert always.stop.index == 2


def test_an_ensemble_sums_rewards(world):
    policy, tokenizer, scorers, prompt, completion = world
    one = scorers["vocabulary"]
    both = RewardEnsemble([one, one], [0.5, 2.0])
    config = DecodingConfig(method="farma")
    found = inspect_completion(
        policy, tokenizer, both, build_method(config, both), prompt, completion, config=config
    )
    single = look(world, "vocabulary")
    assert [t.reward for t in found.tokens] == pytest.approx(
        [2.5 * t.reward for t in single.tokens], abs=1e-5
    )


def test_rows_are_read_as_decoding_reads_them(world):
    policy, tokenizer, scorers, prompt, completion = world
    config = DecodingConfig(method="farma", max_new_tokens=5, batch_size=1, seed=3)
    method = build_method(config, scorers["vocabulary"])
    given = (policy, tokenizer, scorers["vocabulary"], method, config)
    assert as_read(*given, {"id": "a", "prompt": PROMPT, "completion": COMPLETION}) == (
        prompt, completion,
    )
    assert as_read(*given, {"id": "a", "prompt": PROMPT, "token_ids": [4, 5]})[1] == [4, 5]
    written = next(generate(policy, tokenizer, [PROMPT], method, config))
    assert as_read(*given, {"id": "0", "prompt": PROMPT})[1] == written.token_ids
    with pytest.raises(DataError, match="no 'role', only rolle"):
        as_read(*given, {"id": "a", "prompt": [{"rolle": "user"}]})


def test_texts_of_bytes_and_special_tokens():
    letters = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {letter: index for index, letter in enumerate(sorted(letters))}
    bytewise = Tokenizer(models.BPE(vocabulary, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytewise, eos_token="<eos>")
    ids = tokenizer("a é b")["input_ids"]
    texts = token_texts(tokenizer, ids[:1], [*ids[1:], tokenizer.eos_token_id])
    assert texts[0] == " "
    assert len(texts) == len(ids)
    assert texts[1].strip()  # the first byte of é, by its name
    assert texts[3:] == [" ", "b", "<eos>"]
    assert "\ufffd" not in "".join(texts)


def test_what_cannot_be_inspected(world):
    policy, tokenizer, scorers, prompt, completion = world
    with pytest.raises(ConfigError, match="needs a goal state"):
        look(world, "scalar", "none", rule=FilterRule("similarity", 0.0))
    method = build_method(DecodingConfig(), None)
    with pytest.raises(DataError, match="completion encodes to no token"):
        inspect_completion(policy, tokenizer, scorers["scalar"], method, prompt, [])
    with pytest.raises(DataError, match="can read 512"):
        inspect_completion(policy, tokenizer, scorers["scalar"], method, prompt, completion * 60)


def test_json_round_trip(world):
    found = look(world, "vocabulary", rule=FilterRule("reward", 0.0))
    assert Inspection.model_validate_json(found.model_dump_json()) == found
