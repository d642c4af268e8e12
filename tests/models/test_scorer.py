"""The scorer against the reward model read row by row, and its bad inputs."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from rewardsteer.data.template import Template
from rewardsteer.errors import CheckpointError, DataError, MismatchError, NonFiniteError
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.compatibility import check_head, check_vocabulary
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.loading import build
from tests.fakes import CHARACTERS, character_tokenizer, save_tiny

PROMPTS = ["a", "What is 7+8?", "Sum: 3, 4", "zz", "Who?"]
COMPLETIONS = ["yes", "1", "It is 7, I think. No, 8!", "", "a b c d"]


@pytest.fixture(scope="module", params=["llama", "gpt_neox", "gpt2"])
def base(request, tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp(request.param) / "m", request.param)


@pytest.fixture(scope="module", params=["scalar", "vocabulary"])
def any_scorer(request, tmp_path_factory):
    return make(save_tiny(tmp_path_factory.mktemp(request.param) / "m"), request.param)


def make(base, kind="scalar", template=None, **tokenizer_options):
    torch.manual_seed(1)
    model = RewardModel.from_base(base, HeadConfig(kind=kind)).eval()
    tokenizer = character_tokenizer(**tokenizer_options)
    return Scorer(model, tokenizer, template or Template())


def alone(scorer, prompt_ids, response_ids):
    """Reward of one unpadded row from the carrier's own forward pass."""
    ids = torch.tensor([prompt_ids + response_ids])
    with torch.no_grad():
        if scorer.head_kind == "scalar":
            states = scorer.reward_model.backbone(input_ids=ids).last_hidden_state
            return float(scorer.reward_model.carrier.score(states)[0, -1, 0])
        logits = scorer.reward_model.carrier(input_ids=ids).logits
        return float(logits[0, -2, ids[0, -1]])


@pytest.mark.parametrize("card", ["new", "without the number"])
@pytest.mark.parametrize("objective", ["autoregressive", "max_constraint"])
def test_rows_that_no_token_has_do_not_count(tmp_path, objective, card):
    """A vocabulary padded to a round size scores as one that is not, also after loading."""
    found = []
    for rows in (0, 23):
        base = save_tiny(tmp_path / f"base-{rows}")
        tokenizer = character_tokenizer()
        if rows:
            policy = AutoModelForCausalLM.from_pretrained(base)
            policy.resize_token_embeddings(len(tokenizer) + rows)
            policy.get_output_embeddings().weight.data[len(tokenizer) :] = 0.9
            policy.save_pretrained(base)
        config = TrainConfig.model_validate({
            "base_model": str(base), "prepared": "nowhere", "head": {"kind": "vocabulary"},
            "phases": [{"objective": [{"name": objective}]}],
        })
        model = build(config, tokenizer)
        folder = tmp_path / f"model-{rows}"
        head = HeadConfig(kind="vocabulary")
        model.save_pretrained(folder, tokenizer, CheckpointCard(head=head, objective=objective))
        told = json.loads((folder / "rewardsteer.json").read_text())
        assert told["tokens"] == len(tokenizer)
        if card != "new":
            del told["tokens"]
            (folder / "rewardsteer.json").write_text(json.dumps(told))
        scorer = load_scorer(folder, device="cpu")
        assert scorer.reward_model.head.token_count == len(tokenizer)
        assert scorer.reward_model.head.vocabulary_size == len(tokenizer) + rows
        hidden = torch.linspace(-1, 1, 3 * scorer.hidden_size).view(3, -1)
        found.append((
            scorer.score(PROMPTS, COMPLETIONS),
            model.eval().head.soft_next_token(hidden, 1.0).detach().numpy(),
            scorer.reward_model.head.soft_next_token(hidden, 1.0).detach().numpy(),
        ))
    for plain, padded in zip(*found, strict=True):
        np.testing.assert_allclose(padded, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["scalar", "vocabulary"])
@pytest.mark.parametrize("pad_is_eos", [False, True])
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_batches_equal_single_rows(base, kind, pad_is_eos, padding_side):
    scorer = make(base, kind, pad_is_eos=pad_is_eos, padding_side=padding_side)
    rewards = scorer.score(PROMPTS, COMPLETIONS, batch_size=2)
    prompt_ids, response_ids = scorer.encode(PROMPTS, COMPLETIONS)
    expected = [alone(scorer, p, r) for p, r in zip(prompt_ids, response_ids, strict=True)]
    assert rewards.dtype == np.float64
    np.testing.assert_allclose(rewards, expected, rtol=1e-4, atol=1e-5)


tokens = st.integers(0, 60)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.lists(tokens, max_size=40), st.lists(tokens, min_size=1, max_size=40)),
        min_size=1, max_size=6,
    ),
    batch_size=st.integers(1, 7),
)
def test_any_rows_in_any_batches(any_scorer, rows, batch_size):
    prompt_ids, response_ids = [row[0] for row in rows], [row[1] for row in rows]
    if any_scorer.head_kind == "vocabulary":  # a row's first token has no state before it
        prompt_ids = [ids or [0] for ids in prompt_ids]
    rewards = any_scorer.score_ids(prompt_ids, response_ids, batch_size=batch_size)
    expected = [alone(any_scorer, p, r) for p, r in zip(prompt_ids, response_ids, strict=True)]
    np.testing.assert_allclose(rewards, expected, rtol=1e-3, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(prompt=st.text(max_size=20), completion=st.text(max_size=20))
def test_any_text(any_scorer, prompt, completion):
    [reward] = any_scorer.score([prompt], [completion])
    [per_token] = any_scorer.token_scores([prompt], [completion])
    if len(any_scorer.encode([prompt], [completion])[0][0]):
        assert per_token.rewards[-1] == pytest.approx(reward, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", ["scalar", "vocabulary"])
def test_token_scores_end_in_the_score(base, kind):
    scorer = make(base, kind)
    _, response_ids = scorer.encode(PROMPTS, COMPLETIONS)
    per_token = scorer.token_scores(PROMPTS, COMPLETIONS, batch_size=3)
    assert [len(scores.rewards) for scores in per_token] == [len(ids) for ids in response_ids]
    np.testing.assert_allclose(
        [scores.rewards[-1] for scores in per_token], scorer.score(PROMPTS, COMPLETIONS), rtol=1e-5
    )


def test_next_token_rewards_are_the_rewards_of_extensions(base):
    scorer = make(base, "vocabulary")
    ids, mask = torch.tensor([[2, 5, 6], [7, 8, 9]]), torch.tensor([[0, 1, 1], [1, 1, 1]])
    rewards = scorer.next_token(ids, mask, scorer.open())
    assert rewards.shape == (2, len(scorer.tokenizer))
    expected = scorer.score_ids([[5, 6], [7, 8, 9]], [[11], [12]])
    np.testing.assert_allclose([rewards[0, 11], rewards[1, 12]], expected, rtol=1e-4, atol=1e-5)
    asked = scorer.candidates(ids, mask, torch.tensor([[11, 3], [4, 12]]))
    np.testing.assert_allclose([asked[0, 0], asked[1, 1]], expected, rtol=1e-4, atol=1e-5)


def test_candidates_are_the_rewards_of_extensions(base):
    scorer = make(base)
    ids, mask = torch.tensor([[2, 5, 6], [7, 8, 9]]), torch.tensor([[0, 1, 1], [1, 1, 1]])
    rewards = scorer.candidates(ids, mask, torch.tensor([[11, 3], [4, 12]]), scorer.open())
    expected = scorer.score_ids(
        [[5, 6], [5, 6], [7, 8, 9], [7, 8, 9]], [[11], [3], [4], [12]]
    )
    np.testing.assert_allclose(rewards.flatten(), expected, rtol=1e-4, atol=1e-5)


def test_an_autoregressive_model_is_worth_its_log_probabilities(base):
    scorer = make(base, "vocabulary")
    scorer.objective = "autoregressive"
    prompt_ids, response_ids = scorer.encode(PROMPTS, COMPLETIONS)
    rewards = scorer.score_ids(prompt_ids, response_ids, batch_size=2)
    tokens = scorer.token_scores_ids(prompt_ids, response_ids, batch_size=3)
    for row, (prompt, response) in enumerate(zip(prompt_ids, response_ids, strict=True)):
        with torch.no_grad():
            logits = scorer.reward_model.carrier(torch.tensor([prompt + response])).logits[0]
        steps = logits.double().log_softmax(dim=-1)[len(prompt) - 1 : -1]
        expected = [float(one[token]) for one, token in zip(steps, response, strict=True)]
        np.testing.assert_allclose(tokens[row].rewards, np.cumsum(expected), rtol=1e-4, atol=1e-4)
        assert rewards[row] == pytest.approx(sum(expected), rel=1e-4, abs=1e-4)


def test_saved_and_loaded(base, tmp_path):
    scorer = make(base, template=Template(response=" {response}"))
    card = CheckpointCard(
        head=HeadConfig(), objective="bradley_terry", template=scorer.template.model_dump()
    )
    scorer.reward_model.save_pretrained(tmp_path / "r", scorer.tokenizer, card)
    loaded = load_scorer(tmp_path / "r")
    assert loaded.template == scorer.template
    assert loaded.objective == "bradley_terry"
    assert loaded.fingerprint
    # Where weights lie in memory decides how products of a few rows are rounded.
    np.testing.assert_allclose(
        loaded.score(PROMPTS, COMPLETIONS), scorer.score(PROMPTS, COMPLETIONS), rtol=1e-6
    )
    with pytest.raises(CheckpointError, match="nowhere"):
        load_scorer(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["scalar", "vocabulary"])
def test_whichever_stop_id_ends_a_response_its_reward_is_the_same(base, kind):
    """Policies have several: the end of a turn, of the text, or both in a row."""
    scorer = make(base, kind)
    end = scorer.tokenizer.eos_token_id
    turn, other = 7, 8  # the policy's own
    stops = {end, turn, other}
    prompt, body = scorer.encode(PROMPTS[:1], COMPLETIONS[:1])
    prompt, body = prompt[0], [token for token in body[0] if token not in stops]
    endings = [[], [turn], [other], [end], [turn, end], [other, turn], [turn, turn]]
    closed = [scorer.close_response(body + ending, stops) for ending in endings]
    assert closed == [[*body, end]] * len(endings)
    rewards = scorer.score_ids([prompt] * len(closed), closed)
    np.testing.assert_allclose(rewards, alone(scorer, prompt, [*body, end]), rtol=1e-4, atol=1e-5)
    # Within a response such a token is one like others; one nobody named is text.
    assert scorer.close_response([turn, *body, turn], stops) == [turn, *body, end]
    assert scorer.close_response([*body, turn]) == [*body, turn, end]
    open_ended = make(base, kind, template=Template(append_eos=False))
    assert [open_ended.close_response(body + e, stops) for e in endings] == [body] * len(endings)
    # A response of stop ids alone keeps one: a row needs a token to read.
    assert open_ended.close_response([turn, end], stops) == [turn]


def test_responses_are_closed_once(base):
    scorer = make(base)
    end = scorer.tokenizer.eos_token_id
    assert scorer.close_response([5, 6]) == scorer.close_response([5, 6, end]) == [5, 6, end]
    open_ended = make(base, template=Template(append_eos=False))
    assert open_ended.close_response([5, 6]) == open_ended.close_response([5, 6, end]) == [5, 6]
    assert open_ended.close_response([end]) == [end], "there must be something to read"


def test_bad_rows(base):
    scorer = make(base)
    with pytest.raises(DataError, match="2 prompts and 1 completions"):
        scorer.score(["a", "b"], ["c"])
    with pytest.raises(DataError, match=r"Row 2 has 600 tokens, .* at most 512"):
        scorer.score_ids([[5], [5] * 300], [[6], [6] * 300])
    with pytest.raises(DataError, match="Row 1 holds no token"):
        scorer.score_ids([[]], [[]])


def test_non_finite_rewards_name_the_row(base):
    scorer = make(base)
    with torch.no_grad():
        scorer.reward_model.carrier.get_input_embeddings().weight[50] = float("nan")
    with pytest.raises(NonFiniteError, match="row 2"):
        scorer.score_ids([[5], [50]], [[6], [6]])


class TestVocabulary:
    def test_same_tokens(self):
        check_vocabulary(character_tokenizer(), character_tokenizer(padding_side="left"))

    def test_padding_token_on_one_side_only(self):
        # Appended, as `ensure_padding_token` does: the ids of the others stay.
        policy, reward = character_tokenizer(pad_is_eos=True), character_tokenizer(pad_is_eos=True)
        reward.add_special_tokens({"pad_token": "<|pad|>"})
        check_vocabulary(policy, reward)
        check_vocabulary(reward, policy)

    def test_other_order_of_tokens(self):
        policy, reward = character_tokenizer(), character_tokenizer(CHARACTERS[::-1])
        policy.name_or_path, reward.name_or_path = "my/policy", "my/reward"
        with pytest.raises(MismatchError) as caught:
            check_vocabulary(policy, reward)
        message = str(caught.value)
        for part in ("'my/policy'", "'my/reward'", f"({len(policy)} tokens)", "id 3", "'a'"):
            assert part in message

    def test_each_with_a_padding_token_of_its_own(self):
        policy, reward = character_tokenizer(pad_is_eos=True), character_tokenizer(pad_is_eos=True)
        policy.add_special_tokens({"pad_token": "[PAD]"})
        reward.add_special_tokens({"pad_token": "<|pad|>"})
        check_vocabulary(policy, reward)

    def test_other_special_tokens(self):
        policy, reward = character_tokenizer(pad_is_eos=True), character_tokenizer(pad_is_eos=True)
        policy.add_special_tokens({"additional_special_tokens": ["<call>"]})
        reward.add_special_tokens({"additional_special_tokens": ["<turn>"]})
        with pytest.raises(MismatchError, match="'<call>' in the first and '<turn>'"):
            check_vocabulary(policy, reward)

    def test_more_text_tokens_on_one_side(self):
        with pytest.raises(MismatchError, match="absent"):
            check_vocabulary(character_tokenizer(), character_tokenizer(CHARACTERS + "é"))


class TestHead:
    def test_wrong_head(self, base):
        expected = r"The judge needs .* vocabulary head .* scalar head .*; judge by another"
        with pytest.raises(MismatchError, match=expected):
            check_head("The judge", make(base), "vocabulary", "judge by another")
