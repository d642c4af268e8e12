"""Implicit rewards against a plain transcription of RewardBench's dpo.py."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rewardsteer.data.template import Template
from rewardsteer.errors import CheckpointError, ConfigError, DataError, MismatchError
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.implicit import ImplicitScorer
from tests.fakes import character_tokenizer, save_tiny

PROMPTS = ["What is 7+8?", "a", "Who are you?", ""]
COMPLETIONS = ["15", "It is so.", "Nobody at all, I think", "xy"]
TEMPLATE = Template(kind="text", prompt="Q: {prompt}\nA:", response=" {response}")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("implicit")
    return [str(save_tiny(root / name, seed=seed)) for name, seed in (("dpo", 1), ("ref", 2))]


@pytest.fixture(scope="module")
def scorer(folders):
    return ImplicitScorer.load(folders[0], folders[1], template=TEMPLATE, device="cpu", beta=0.5)


@torch.no_grad()
def plain(folder, prompt, completion, *, reduce="sum", eos=True):
    """One row alone: log-probabilities of the response's tokens, its end included."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(folder)
    before = tokenizer(f"Q: {prompt}\nA:")["input_ids"]
    whole = tokenizer(f"Q: {prompt}\nA: {completion}")["input_ids"]
    whole = [*whole, tokenizer.eos_token_id] if eos else whole
    logits = model(torch.tensor([whole])).logits[0].double()
    logps = logits[:-1].log_softmax(-1)[range(len(whole) - 1), whole[1:]][len(before) - 1 :]
    if reduce == "mean":
        return float(logps.mean())
    if reduce == "norm":
        return float(-logps.norm())
    return float(logps.sum()) if reduce == "sum" else logps.numpy()


def test_log_ratios(scorer, folders):
    expected = [
        0.5 * (plain(folders[0], p, c) - plain(folders[1], p, c))
        for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    for batch_size in (1, 3, 16):
        found = scorer.score(PROMPTS, COMPLETIONS, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    turned = scorer.score(PROMPTS[::-1], COMPLETIONS[::-1])
    np.testing.assert_allclose(turned[::-1], expected, atol=1e-4)
    open_ = scorer.score(PROMPTS[:1], COMPLETIONS[:1], closed=False)
    assert open_[0] == pytest.approx(0.5 * (
        plain(folders[0], PROMPTS[0], COMPLETIONS[0], eos=False)
        - plain(folders[1], PROMPTS[0], COMPLETIONS[0], eos=False)
    ), abs=1e-4)


@pytest.mark.parametrize("reduction", ["sum", "mean", "norm"])
def test_without_a_reference(folders, reduction):
    scorer = ImplicitScorer.load(
        folders[0], reference_free=True, reduction=reduction, template=TEMPLATE, beta=1.0,
        device="cpu",
    )
    expected = [
        plain(folders[0], p, c, reduce=reduction)
        for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    np.testing.assert_allclose(scorer.score(PROMPTS, COMPLETIONS), expected, atol=1e-4)
    assert scorer.provenance()["reference_free"] is True


def test_mean_log_ratio(folders):
    scorer = ImplicitScorer.load(
        *folders, reduction="mean", template=TEMPLATE, beta=1.0, device="cpu"
    )
    expected = [
        plain(folders[0], p, c, reduce="mean") - plain(folders[1], p, c, reduce="mean")
        for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    np.testing.assert_allclose(scorer.score(PROMPTS, COMPLETIONS), expected, atol=1e-4)


def test_token_scores_are_rewards_of_prefixes(scorer, folders):
    found = scorer.token_scores(PROMPTS[:3], COMPLETIONS[:3])
    for one, prompt, completion in zip(found, PROMPTS, COMPLETIONS, strict=False):
        values = 0.5 * (
            plain(folders[0], prompt, completion, reduce=None)
            - plain(folders[1], prompt, completion, reduce=None)
        )
        np.testing.assert_allclose(one.rewards, np.cumsum(values), atol=1e-4)
        assert one.similarities is None


def test_step_scores_are_differences_at_step_ends(scorer):
    steps = [["1+1=2", "so 4", "done"], ["one"], []]
    found = scorer.step_scores(["a", "b", "c"], steps)
    whole = scorer.score(["a", "b", "c"], ["\n\n".join(own) for own in steps])
    prefixes = scorer.score(["a", "a"], ["1+1=2", "1+1=2\n\nso 4"], closed=False)
    assert np.cumsum(found[0]) == pytest.approx([*prefixes, whole[0]], abs=1e-4)
    assert found[1] == pytest.approx(whole[1:2], abs=1e-4)
    assert found[2].shape == (0,)


def test_chat_template(folders, tmp_path):
    tokenizer = load_tokenizer(folders[0])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '#\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    models = [AutoModelForCausalLM.from_pretrained(one) for one in folders]
    scorer = ImplicitScorer(*models, tokenizer)
    turns = [{"role": "user", "content": "Who?"}]
    ids = tokenizer.apply_chat_template(
        [*turns, {"role": "assistant", "content": "Me"}], tokenize=True, return_dict=False
    )
    cut = len(tokenizer.apply_chat_template(
        turns, tokenize=True, return_dict=False, add_generation_prompt=True
    ))
    sums = []
    for model in models:
        with torch.no_grad():
            logps = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        sums.append(float(logps[range(len(ids) - 1), ids[1:]][cut - 1 :].sum()))
    assert scorer.score([turns], ["Me"])[0] == pytest.approx(0.1 * (sums[0] - sums[1]), abs=1e-4)


def test_steps_as_eurusprm_reads_them(folders):
    """q_t = β Σ log(π / π_ref) over the response up to the end of step t, and a step is worth the
    difference (PRIME-RL/ImplicitPRM); steps are "Step i: …" with a blank line between them."""
    tokenizer = load_tokenizer(folders[0])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '#\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    models = [AutoModelForCausalLM.from_pretrained(one) for one in folders]
    steps = ["Step 1: 7+8=15", "Step 2: so 15", "Step 3: done"]
    turns = [{"role": "user", "content": "What is 7+8?"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    cut, ends = len(ids), []
    for at, step in enumerate(steps):
        written = ("\n\n" if at else "") + step + ("#\n" if at == len(steps) - 1 else "")
        ids += tokenizer(written, add_special_tokens=False)["input_ids"]
        ends.append(len(ids))
    with torch.no_grad():
        own, reference = (
            model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)[
                range(len(ids) - 1), ids[1:]
            ] for model in models
        )
    q = [0.001 * float((own - reference)[cut - 1 : end - 1].sum()) for end in ends]
    scorer = ImplicitScorer(*models, tokenizer, beta=0.001)
    [found] = scorer.step_scores([turns], [steps])
    np.testing.assert_allclose(np.cumsum(found), q, atol=1e-6)
    assert found[0] == pytest.approx(q[0], abs=1e-6)


def test_an_empty_prompt_has_nothing_before_its_first_token(folders):
    models = [AutoModelForCausalLM.from_pretrained(one) for one in folders]
    scorer = ImplicitScorer(*models, character_tokenizer(), Template(kind="text"))
    [found] = scorer.token_scores([""], ["ab"])
    assert found.rewards[0] == 0
    assert found.rewards.shape == (3,)


def test_models_that_do_not_fit(folders, tmp_path):
    other = save_tiny(tmp_path / "other", characters="0123456789abc")
    with pytest.raises(MismatchError, match="must have one vocabulary"):
        ImplicitScorer.load(folders[0], other)
    with pytest.raises(ConfigError, match="reference=FOLDER_OR_NAME"):
        ImplicitScorer.load(folders[0])
    with pytest.raises(ConfigError, match="reference=FOLDER_OR_NAME"):
        ImplicitScorer.load(*folders, reference_free=True)
    with pytest.raises(ConfigError, match="'norm' is for a policy without"):
        ImplicitScorer.load(*folders, reduction="norm")
    with pytest.raises(ConfigError, match="sum, mean or norm"):
        ImplicitScorer.load(*folders, reduction="max")
    for beta in (0, -1.0, float("nan")):
        # Before a model loads, and one that is not there is not missed.
        with pytest.raises(ConfigError, match="beta= as a positive number"):
            ImplicitScorer.load(tmp_path / "absent", reference_free=True, beta=beta)
    with pytest.raises(CheckpointError, match="there is none"):
        ImplicitScorer.load(folders[0], tmp_path / "absent")


def test_rows_that_cannot_be_read(scorer):
    with pytest.raises(DataError, match=r"Row 2 has 6.. tokens, but .* reads at most 512"):
        scorer.score(["a", "b" * 600], ["c", "d"])
    with pytest.raises(MismatchError, match="no hidden states"):
        scorer.token_scores_ids([[1]], [[2]], goal=object())
