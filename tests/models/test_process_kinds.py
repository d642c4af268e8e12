"""Every kind of process reward model against its published script; what goes wrong with them."""

import numpy as np
import pytest
import torch

from rewardsteer.errors import CheckpointError, ConfigError, DataError, NonFiniteError
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.kinds.easy_to_hard import EasyToHard
from rewardsteer.records import Message
from tests import process_models as published
from tests.fakes import tiny_causal_lm

PROMPTS = ["What is 2+3?", "Sum 4, 5 and 6.", "Is 7 prime?"]
STEPS = [
    ["Step 1: 2+3 = 5.", "Step 2: so 5."],
    ["Step 1: 4+5=9.", "Step 2: 9+6 = 15.", "Step 3: the answer is 15.", "Done."],
    ["Yes."],
]
KINDS = {
    "trl": ("token_classification_prm", published.save_trl, published.plain_trl),
    "pure": (
        "pure_prm", published.save_trl,
        lambda *row: published.plain_trl(*row, "\n\n", begin=False, difference=True),
    ),
    "qwen": ("qwen_prm", published.save_qwen, published.plain_qwen),
    "skywork": ("skywork_prm", published.save_skywork, published.plain_skywork),
    "shepherd": ("math_shepherd", published.save_shepherd, published.plain_shepherd),
    "rlhflow": ("rlhflow_prm", published.save_rlhflow, published.plain_rlhflow),
    "easy": ("easy_to_hard", published.save_easy_to_hard, published.plain_easy_to_hard),
    "reasoneval": ("reasoneval", published.save_reasoneval, published.plain_reasoneval),
    "reasoneval 7B": (
        "reasoneval", lambda folder: published.save_reasoneval(folder, begins=True),
        published.plain_reasoneval,
    ),
}


def load(kind, folder, template=None, **options):
    return load_scorer(
        folder, kind=KINDS[kind][0], device="cpu", dtype=torch.float32, template=template, **options
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("process")
    return {name: save(place / name) for name, (_, save, _) in KINDS.items()}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_steps_are_worth_what_the_published_script_says(kind, folders):
    found = load(kind, folders[kind]).step_scores(PROMPTS, STEPS)
    for prompt, steps, values in zip(PROMPTS, STEPS, found, strict=True):
        expected = KINDS[kind][2](folders[kind], prompt, steps)
        assert values.dtype == np.float64
        assert len(values) == len(steps)
        np.testing.assert_allclose(values, expected, atol=1e-5)
    # They tell steps apart, so that a wrong position would be seen.
    assert np.ptp(np.concatenate(found)) > 1e-2


def test_batches_padding_and_order_do_not_matter(kind, folders):
    scorer = load(kind, folders[kind])
    alone = scorer.step_scores(PROMPTS, STEPS, batch_size=1)
    together = scorer.step_scores(PROMPTS[::-1], STEPS[::-1], batch_size=3)[::-1]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(("name", "expected"), [
    ("min", np.min), ("last", lambda values: values[-1]), ("product", np.prod), ("mean", np.mean),
])
def test_a_text_is_split_into_steps_and_they_are_aggregated(kind, folders, name, expected):
    scorer = load(kind, folders[kind], aggregate=name)
    texts = [scorer.split.join(steps) for steps in STEPS]
    found = scorer.score(PROMPTS, texts)
    steps = scorer.step_scores(PROMPTS, STEPS)
    np.testing.assert_allclose(found, [expected(values) for values in steps], atol=1e-6)
    assert scorer.provenance()["aggregation"] == name


def test_a_beginning_ends_with_a_step_of_its_own(kind, folders):
    scorer = load(kind, folders[kind], aggregate="last")
    text = scorer.split.join(["Step 1: 4+5=9.", "Step 2: 9+"])
    found = scorer.score(PROMPTS[:1], [text], closed=False)
    expected = scorer.step_scores(PROMPTS[:1], [["Step 1: 4+5=9.", "Step 2: 9+"]])[0][-1]
    assert found[0] == pytest.approx(expected, abs=1e-6)


def test_published_defaults(folders):
    scorers = {name: load(name, folders[name]) for name in KINDS}
    assert {name: one.aggregate for name, one in scorers.items()} == {
        "trl": "min", "pure": "min", "qwen": "product", "skywork": "min", "shepherd": "min",
        "rlhflow": "mean", "easy": "min", "reasoneval": "min", "reasoneval 7B": "min",
    }
    assert {name: one.split for name, one in scorers.items()} == {
        "trl": "\n", "pure": "\n\n", "qwen": "\n\n", "skywork": "\n", "shepherd": "\n",
        "rlhflow": "\n\n", "easy": "\n\n", "reasoneval": "\n\n", "reasoneval 7B": "\n\n",
    }


@pytest.mark.parametrize("kind", ["trl", "qwen", "skywork", "reasoneval", "reasoneval 7B"])
def test_folders_that_say_what_they_are_are_recognised(folders, kind):
    assert load_scorer(folders[kind], device="cpu").kind == KINDS[kind][0]


@pytest.mark.parametrize("kind", ["shepherd", "rlhflow", "easy"])
def test_a_language_model_is_recognised_as_nothing(folders, kind):
    with pytest.raises(CheckpointError, match=KINDS[kind][0]):
        load_scorer(folders[kind], device="cpu")


def test_options_reach_transformers(folders):
    with pytest.raises(CheckpointError, match="agregate"):
        load("qwen", folders["qwen"], agregate="min")
    assert load("trl", folders["trl"], attn_implementation="eager").aggregate == "min"


def test_one_user_turn_is_a_question_and_a_conversation_is_refused(kind, folders):
    scorer = load(kind, folders[kind])
    turn = [Message(role="user", content=PROMPTS[0])]
    found = scorer.step_scores([turn], STEPS[:1])[0]
    np.testing.assert_allclose(found, scorer.step_scores(PROMPTS[:1], STEPS[:1])[0], atol=1e-6)
    several = [*turn, Message(role="assistant", content="5"), *turn]
    if kind == "qwen":
        assert len(scorer.step_scores([several], STEPS[:1])[0]) == 2
    else:
        with pytest.raises(DataError, match=r"Row 1: a \w+ model reads one question as text; got "
                                            "a conversation with the turns user, assistant, user"):
            scorer.step_scores([several], STEPS[:1])


@pytest.mark.parametrize(("steps", "message"), [
    ([[], ["a"], ["a"]], "Row 1 has no step"),
    ([["a"], ["a", " "], ["a"]], "Row 2: step 2 is empty"),
    (["a", ["a"], ["a"]], "Expected the steps of row 1 as a list of texts"),
    ([["a"]], "one list of steps per prompt, got 3 prompts and 1"),
])
def test_what_is_no_list_of_steps_is_refused(kind, folders, steps, message):
    with pytest.raises(DataError, match=message):
        load(kind, folders[kind]).step_scores(PROMPTS, steps)


def test_an_empty_completion_has_no_step(kind, folders):
    with pytest.raises(DataError, match="Row 2 has no step"):
        load(kind, folders[kind]).score(PROMPTS[:2], ["a", " \n"])


def test_a_solution_that_is_too_long_is_refused(kind, folders):
    with pytest.raises(DataError, match=r"Row 2 has \d+ tokens, but .* reads at most \d+"):
        load(kind, folders[kind]).step_scores(PROMPTS[:2], [["a"], ["a" * 1100]])


@pytest.mark.parametrize(("kind", "mark"), [("qwen", "<extra_0>"), ("shepherd", "ки")])
@pytest.mark.parametrize("where", ["step", "prompt"])
def test_the_mark_within_a_text_is_refused(folders, kind, mark, where):
    texts = {"prompt": "What?", "step": "So."} | {where: f"a {mark} b"}
    with pytest.raises(DataError, match=rf"Row 1: expected 2 \w+ '{mark}', one behind each step, "
                                        "and the text holds 3; take"):
        load(kind, folders[kind]).step_scores([texts["prompt"]], [[texts["step"], "Done."]])


@pytest.mark.parametrize("kind", ["trl", "pure", "skywork"])
def test_a_separator_within_a_step_does_not_move_its_value(folders, kind):
    found = load(kind, folders[kind]).step_scores(["What?"], [["a\n\nb", "c"]])[0]
    np.testing.assert_allclose(
        found, KINDS[kind][2](folders[kind], "What?", ["a\n\nb", "c"]), atol=1e-5
    )


def test_skywork_reads_the_blank_lines_of_a_text(folders):
    """``prepare_input`` gives every line of a text its newline, also an empty one."""
    text = "\nFirst, 2+3.\n\n  So 5.\n\n"
    lines = text.split("\n")
    each = published.plain_skywork(folders["skywork"], PROMPTS[0], lines)
    expected = [value for line, value in zip(lines, each, strict=True) if line.strip()]
    scorer = load("skywork", folders["skywork"], aggregate="product")
    assert scorer.score([PROMPTS[0]], [text])[0] == pytest.approx(np.prod(expected), abs=1e-6)
    without = scorer.score([PROMPTS[0]], ["First, 2+3.\nSo 5."])[0]
    assert abs(without - np.prod(expected)) > 1e-4


def test_easy_to_hard_takes_blank_lines_of_the_question_and_refuses_those_of_a_step(folders):
    scorer = load("easy", folders["easy"])
    found = scorer.step_scores(["What?\n\nSay why."], [["a.", "b"]])[0]
    np.testing.assert_allclose(
        found, published.plain_easy_to_hard(folders["easy"], "What?\n\nSay why.", ["a.", "b"]),
        atol=1e-5,
    )
    other = scorer.step_scores(["What?\n\nSay why."], [["c", "b"]])[0]
    assert np.abs(found - other).min() > 1e-4
    for step in ("a\n\nb", "a\n", "\na"):
        with pytest.raises(DataError, match="Row 1: a step begins or ends with a line break"):
            scorer.step_scores(["What?"], [[step, "c"]])


def test_easy_to_hard_refuses_a_tokenizer_that_merges_blank_lines():
    tokenizer = published.merging_tokenizer()
    scorer = EasyToHard(tiny_causal_lm("llama", vocab_size=len(tokenizer)), tokenizer)
    assert len(scorer.step_scores(["What?"], [["a", "b"]])[0]) == 2
    with pytest.raises(DataError, match="Row 1: expected each blank line as the 1 tokens"):
        scorer.step_scores(["What?"], [["a.", "b"]])


def test_reasoneval_tells_redundancy_too(folders):
    valid, redundant = (
        load("reasoneval", folders["reasoneval"], value=value).step_scores(PROMPTS, STEPS)
        for value in ("validity", "redundancy")
    )
    assert all((one > other).all() for one, other in zip(valid, redundant, strict=True))
    with pytest.raises(ConfigError, match="value must be validity or redundancy, got 'good'"):
        load("reasoneval", folders["reasoneval"], value="good")


def test_steps_may_bring_math_shepherds_marks_with_them(folders):
    scorer = load("shepherd", folders["shepherd"], aggregate="mean")
    found = scorer.score(["What?"], ["Step 1: a ки\nStep 2: b ки"])
    expected = scorer.step_scores(["What?"], [["Step 1: a", "Step 2: b"]])[0].mean()
    assert found[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["shepherd", "rlhflow"])
@pytest.mark.parametrize(("options", "message"), [
    ({"good": "yes"}, "good must be one token of the model's tokenizer, which writes 'yes' with 3"),
    ({"bad": "é"}, "bad must be one token .* with none that it knows"),
    ({"bad": "+"}, r"good and bad must be different tokens; '\+' and '\+' are both token"),
    ({"split": ""}, "split must be the text between two steps"),
    ({"aggregate": "median"}, "Unknown aggregation 'median'; expected min, last, product, mean"),
])
def test_wrong_options_are_refused(folders, kind, options, message):
    with pytest.raises(ConfigError, match=message):
        load(kind, folders[kind], **options)


@pytest.mark.parametrize("kind", ["qwen", "shepherd"])
def test_a_separator_of_several_tokens_is_refused(folders, kind):
    with pytest.raises(ConfigError, match="separator must be one token"):
        load(kind, folders[kind], separator="abc")


def test_swapped_tokens_swap_the_values(folders):
    usual = load("shepherd", folders["shepherd"]).step_scores(PROMPTS, STEPS)
    swapped = load("shepherd", folders["shepherd"], good="-", bad="+").step_scores(PROMPTS, STEPS)
    for one, other in zip(usual, swapped, strict=True):
        np.testing.assert_allclose(one + other, 1, atol=1e-6)


def test_caps_of_logits_are_kept(tmp_path):
    folder = published.save_shepherd(tmp_path / "gemma", kind="gemma2")
    found = load("shepherd", folder).step_scores(PROMPTS, STEPS)
    for prompt, steps, values in zip(PROMPTS, STEPS, found, strict=True):
        expected = published.plain_shepherd(folder, prompt, steps)
        np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize("family", ["qwen", "llama2", "gemma"])
def test_rlhflows_form_under_other_templates(tmp_path, family):
    folder = published.save_rlhflow(tmp_path / family, family)
    found = load("rlhflow", folder).step_scores(PROMPTS, STEPS)
    assert [len(values) for values in found] == [2, 4, 1]


def test_reasonflux_has_no_system_message(folders):
    found = load("qwen", folders["qwen"], system="").step_scores(PROMPTS, STEPS)
    expected = published.plain_qwen(folders["qwen"], PROMPTS[1], STEPS[1], system=None)
    np.testing.assert_allclose(found[1], expected, atol=1e-5)


def test_probabilities_that_underflow_lose_no_step(tmp_path):
    folder = published.save_qwen(tmp_path / "sharp", sharpness=-1e4)
    found = load("qwen", folder).step_scores(PROMPTS, STEPS)
    assert [len(values) for values in found] == [2, 4, 1]
    assert 0.0 in np.concatenate(found)


def test_other_weights_are_refused(folders, tmp_path):
    with pytest.raises(CheckpointError, match="has 3 labels"):
        load("trl", published.save_trl(tmp_path / "three", labels=3))
    with pytest.raises(CheckpointError, match=r"lack score.* which would be drawn at random"):
        load("trl", folders["rlhflow"])
    with pytest.raises(CheckpointError, match=r"lack score\.0\.bias, score\.0\.weight"):
        load("qwen", folders["rlhflow"])
    with pytest.raises(CheckpointError, match=r"lack v_head\.summary\.bias, v_head\.summ"):
        load("skywork", folders["rlhflow"])
    with pytest.raises(CheckpointError, match=r"hold score\.0\.bias.* name the right kind"):
        load("shepherd", folders["qwen"])


def test_a_template_is_refused(kind, folders):
    with pytest.raises(ConfigError, match="leave the template out"):
        load(kind, folders[kind], template=object())


def test_values_that_are_no_numbers_are_refused(folders):
    scorer = load("trl", folders["trl"])
    scorer.model.score.weight.data[:] = float("nan")
    with pytest.raises(NonFiniteError, match="row 1"):
        scorer.step_scores(PROMPTS, STEPS)
