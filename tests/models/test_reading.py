"""Shared prompts against whole rows: the same states, rewards and similarities, in fewer tokens."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MambaConfig, MambaForCausalLM

from rewardsteer.data.template import Template
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models import reading
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from tests.fakes import character_tokenizer, save_tiny

KINDS = ("llama", "gpt_neox", "gpt2", "qwen3", "mistral", "gemma2")
HEADS = ("scalar", "vocabulary", "autoregressive")


def make(folder, kind="llama", head="scalar", dtype=torch.float64, **config):
    """A pair of scorers of the same model: one that shares prompts and one that does not."""
    base = save_tiny(folder / kind, kind)
    torch.manual_seed(1)
    model = RewardModel.from_base(
        base, HeadConfig(kind="scalar" if head == "scalar" else "vocabulary"), dtype=dtype,
        attn_implementation="sdpa",  # eager masks in float64 with numbers that float32 lacks
    )
    for name, value in config.items():
        setattr(model.backbone.config, name, value)
    return [
        Scorer(
            model, character_tokenizer(), Template(), share_prompts=share,
            objective=head if head == "autoregressive" else "",
        )
        for share in (True, False)
    ]


@pytest.fixture(scope="module", params=HEADS)
def scorers(request, tmp_path_factory):
    return make(tmp_path_factory.mktemp("models"), head=request.param)


def rows_of(prompts):
    """Token rows: completions of 1 to 9 tokens after every prompt, in mixed order."""
    rng = np.random.default_rng(0)
    rows = [
        (prompt, rng.integers(3, 60, rng.integers(1, 10)).tolist())
        for prompt in prompts for _ in range(4)
    ]
    rng.shuffle(rows)
    return [row[0] for row in rows], [row[1] for row in rows]


PROMPTS = [list(range(5, 45)), list(range(50, 20, -1)), [7, 8], [9], list(range(10, 22))]


def goal_of(scorer, kind="mean"):
    torch.manual_seed(2)
    vectors, made = torch.randn(3, scorer.hidden_size), Provenance(kind=kind, model_fingerprint="")
    keys = torch.randn(3, scorer.hidden_size) if kind == "nearest" else None
    return GoalState("preferred", vectors, made.model_copy(update={"neighbours": 1}), keys)


def equal(ours, theirs, prompts, responses, tolerance, **options):
    np.testing.assert_allclose(
        ours.score_ids(prompts, responses, **options),
        theirs.score_ids(prompts, responses, **options), rtol=tolerance, atol=tolerance,
    )
    options["goal"] = goal_of(ours, "nearest")
    found = ours.token_scores_ids(prompts, responses, **options)
    expected = theirs.token_scores_ids(prompts, responses, **options)
    for one, other in zip(found, expected, strict=True):
        assert one.prompt_tokens == other.prompt_tokens
        for name in ("rewards", "similarities"):
            np.testing.assert_allclose(
                getattr(one, name), getattr(other, name), rtol=tolerance, atol=tolerance
            )


def shares(scorer, prompts, responses, **options):
    """Whether any batch began after a cached prompt."""
    options = {"batch_size": None} | options
    return any(
        read.ids.shape[1] < max(len(prompts[row]) for row in read.rows)
        for read in scorer.read(prompts, responses, **options)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture(tmp_path, kind):
    ours, theirs = make(tmp_path, kind)
    prompts, responses = rows_of(PROMPTS)
    assert shares(ours, prompts, responses)
    assert not shares(theirs, prompts, responses)
    equal(ours, theirs, prompts, responses, 1e-9)


@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_a_window_shorter_than_the_prompt(tmp_path, kind):
    ours, theirs = make(tmp_path, kind, sliding_window=8)
    prompts, responses = rows_of(PROMPTS)
    assert shares(ours, prompts, responses)
    equal(ours, theirs, prompts, responses, 1e-9)


@pytest.mark.parametrize("options", [
    {"batch_size": 1}, {"batch_size": 3}, {"batch_size": None, "batch_tokens": 40},
    {"batch_size": None, "batch_tokens": 1}, {"batch_size": None},
])
def test_any_batches(scorers, options):
    prompts, responses = rows_of(PROMPTS)
    equal(*scorers, prompts, responses, 1e-9, **options)


def test_float32(tmp_path):
    prompts, responses = rows_of(PROMPTS)
    equal(*make(tmp_path, dtype=torch.float32), prompts, responses, 1e-4)


tokens = st.integers(3, 60)


@settings(max_examples=30, deadline=None)
@given(
    prompts=st.lists(st.lists(tokens, min_size=1, max_size=30), min_size=1, max_size=3),
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.lists(tokens, min_size=1, max_size=12)), min_size=1,
        max_size=9,
    ),
    budget=st.sampled_from([None, 1, 64]),
)
def test_any_rows(scorers, prompts, rows, budget):
    chosen = [prompts[number % len(prompts)] for number, _ in rows]
    equal(
        *scorers, chosen, [row for _, row in rows], 1e-9, batch_size=None, batch_tokens=budget
    )


def test_empty_responses_and_prompts(scorers):
    ours, theirs = scorers
    prompts, responses = rows_of(PROMPTS)
    responses[::3] = [[] for _ in responses[::3]]
    np.testing.assert_allclose(
        ours.score_ids(prompts, responses), theirs.score_ids(prompts, responses), rtol=1e-9
    )
    if ours.head_kind == "scalar":
        equal(ours, theirs, [[], [], []], [[5, 6], [7], [8, 9, 10]], 1e-9)


def test_prompts_are_read_once(scorers):
    ours, theirs = scorers
    prompts = [list(range(5, 45))] * 6
    responses = [[number + 3] * 4 for number in range(6)]
    ours.score_ids(prompts, responses)  # the trial
    places = []
    hook = ours.reward_model.backbone.register_forward_pre_hook(
        lambda module, inputs, options: places.append(options["input_ids"].numel()),
        with_kwargs=True,
    )
    ours.score_ids(prompts, responses)
    assert places == [39, 6 * 5]
    theirs.score_ids(prompts, responses)
    assert places[2:] == [6 * 44]
    hook.remove()


def test_a_long_cached_prompt_counts_in_the_budget(scorers):
    prompts, responses = [list(range(3, 60)) * 4] * 8, [[5, 6, 7]] * 8
    [first, *_] = scorers[0].read(prompts, responses, batch_size=None, batch_tokens=240)
    assert len(first.rows) == 240 // (1 + 3 + 227 // 4)


def test_short_prompts_are_not_worth_it(scorers):
    prompts, responses = [[5, 6]] * 4, [[7] * 30] * 4
    assert not shares(scorers[0], prompts, responses)


def test_recurrent_models_read_whole_rows(tmp_path, caplog):
    torch.manual_seed(0)
    base = MambaForCausalLM(MambaConfig(vocab_size=80, hidden_size=16, num_hidden_layers=1))
    model = RewardModel(base, HeadConfig(kind="vocabulary"))
    prompts, responses = rows_of(PROMPTS)
    with caplog.at_level(logging.DEBUG, logger="rewardsteer.models.capabilities"):
        scorers = [
            Scorer(model, character_tokenizer(), Template(), share_prompts=share)
            for share in (True, False)
        ]
        found, expected = (scorer.score_ids(prompts, responses) for scorer in scorers)
    np.testing.assert_allclose(found, expected)
    assert "rows are read whole" in caplog.text


@pytest.mark.parametrize(("width", "dtype", "tokens"), [
    (64, torch.float32, 4096), (256, torch.float32, 3072), (512, torch.float32, 1536),
    (512, torch.bfloat16, 3072), (4096, torch.float32, 1024),
])
def test_small_models_read_more_tokens_together(tmp_path, width, dtype, tokens):
    scorer = make(tmp_path, intermediate_size=width)[0]
    assert reading.default_batch_tokens(scorer.reward_model.to(dtype)) == tokens


def test_without_a_word_about_its_layers_four_times_the_width(tmp_path):
    scorer = make(tmp_path, "gpt2", dtype=torch.float32, n_embd=128)[0]
    assert reading.default_batch_tokens(scorer.reward_model) == 3 * 2**20 // (4 * 128 * 4)
