"""Steps scored in one pass against the reward of each prefix, and what scores texts alone."""

import numpy as np
import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.errors import DataError, MismatchError, NonFiniteError
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.steps import encode_steps
from rewardsteer.models.text_scorer import STEP_SEPARATOR, TextScorer, require_tokens
from tests.chat import save_classifier
from tests.fakes import character_tokenizer, save_tiny

PROMPTS = ["What is 7+8?", "Who?", "", "What is 7+8?", "one"]
STEPS = [["7+8 is", "8+7 is", "15."], ["me"], ["a", "", "b c"], ["no", "yes"], []]


def make(folder, *, head="scalar", template=None, objective="", tokenizer=None):
    torch.manual_seed(2)
    model = RewardModel.from_base(save_tiny(folder), HeadConfig(kind=head))
    return Scorer(model, tokenizer or character_tokenizer(), template or Template(),
                  objective=objective, name="tiny")


class Lengths(TextScorer):
    """Scores texts by their length; prefixes that may go on count half."""

    name = "lengths"

    def score(self, prompts, completions, *, batch_size=16, closed=True):
        return np.array([len(text) * (1.0 if closed else 0.5) for text in completions])


@pytest.mark.parametrize(("head", "objective"), [
    ("scalar", ""), ("vocabulary", "max_constraint"), ("vocabulary", "autoregressive"),
])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_one_pass_equals_each_prefix(tmp_path, head, objective, batch_size):
    scorer = make(tmp_path / "m", head=head, objective=objective)
    found = scorer.step_scores(PROMPTS, STEPS, batch_size=batch_size)
    plain = TextScorer.step_scores(scorer, PROMPTS, STEPS)
    assert [len(one) for one in found] == [len(one) for one in STEPS]
    for ours, theirs in zip(found, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    whole = scorer.score(PROMPTS[:4], [STEP_SEPARATOR.join(one) for one in STEPS[:4]])
    np.testing.assert_allclose([one[-1] for one in found[:4]], whole, atol=1e-5)


@pytest.mark.parametrize("family", ["chatml", "gemma", "llama3"])
def test_chat_templates_close_the_last_step_alone(tmp_path, family):
    """These tokenizers have one token for the blank line, so they split at the joins."""
    scorer = load_scorer(save_classifier(tmp_path / "m", family), device="cpu")
    found = scorer.step_scores(PROMPTS, STEPS)
    plain = TextScorer.step_scores(scorer, PROMPTS, STEPS)
    for ours, theirs in zip(found, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_what_a_template_writes_before_the_response_moves_no_step(tmp_path):
    """Llama 2's template opens the response with a blank."""
    scorer = load_scorer(save_classifier(tmp_path / "m", "llama2"), device="cpu")
    encoded = encode_steps(scorer, PROMPTS[:1], STEPS[:1])
    whole = encoded.prompt_ids[0] + encoded.response_ids[0]
    read = [scorer.tokenizer.decode(whole[: end + 1]) for end in encoded.ends[0]]
    assert [text.partition("[/INST]")[2] for text in read] == [
        " 7+8 is", " 7+8 is\n\n8+7 is", " 7+8 is\n\n8+7 is\n\n15. </s>",
    ]


class Merging:
    """Characters as ids, but a full stop and what follows it in blanks is one token."""

    def __init__(self):
        self.pieces = []

    def ids(self, text):
        import re

        found = re.findall(r"\.\s*|[^.]", text)
        self.pieces += [one for one in found if one not in self.pieces]
        return [self.pieces.index(one) for one in found]

    def decode(self, ids, **_):
        return "".join(self.pieces[one] for one in ids)


class MergingScorer:
    tokenizer = Merging()

    def encode(self, prompts, completions, *, closed=True):
        end = "!" if closed else ""
        return ([self.tokenizer.ids(one) for one in prompts],
                [self.tokenizer.ids(one + end) for one in completions])


def test_a_step_ends_at_the_token_that_completes_it():
    """Where the tokenizer merges the end of a step with the blank line."""
    scorer = MergingScorer()
    encoded = encode_steps(scorer, ["Q"], [["ab.", "c", "d."]])
    whole = encoded.prompt_ids[0] + encoded.response_ids[0]
    read = [scorer.tokenizer.decode(whole[: end + 1]) for end in encoded.ends[0]]
    assert read == ["Qab.\n\n", "Qab.\n\nc", "Qab.\n\nc\n\nd.!"]


def test_the_base_class_scores_prefixes():
    values = Lengths().step_scores(["a", "b"], [["xx", "y"], ["zzz"]])
    assert [one.tolist() for one in values] == [[1.0, 5.0], [3.0]]


@pytest.mark.parametrize("scorer", ["plain", "tokens"])
@pytest.mark.parametrize(("prompts", "steps", "said"), [
    (["a"], [["b"], ["c"]], "got 1 prompts and 2 lists"),
    ("ab", [["b"], ["c"]], "got one text and 2 lists"),
    (["a"], ["bc"], "steps of row 1 as a list of texts"),
])
def test_wrong_steps_are_a_sentence(tmp_path, scorer, prompts, steps, said):
    made = Lengths() if scorer == "plain" else make(tmp_path / "m")
    with pytest.raises(DataError, match=said):
        made.step_scores(prompts, steps)


def test_a_step_without_any_token_is_a_sentence(tmp_path):
    scorer = make(tmp_path / "m", tokenizer=character_tokenizer())
    with pytest.raises(DataError, match="Step 1 of row 1 has no token before its end"):
        scorer.step_scores([""], [["", "b"]])


def test_values_that_are_no_numbers_are_named(tmp_path):
    scorer = make(tmp_path / "m")
    scorer.reward_model.carrier.score.weight.data[:] = float("nan")
    with pytest.raises(NonFiniteError, match="row 1"):
        scorer.step_scores(["a"], [["b", "c"]])


def test_token_rewards_are_asked_for_in_a_sentence(tmp_path):
    scorer = make(tmp_path / "m")
    assert require_tokens(scorer, "goal states") is scorer
    with pytest.raises(MismatchError, match=r"for goal states, but lengths \(Lengths\) scores"):
        require_tokens(Lengths(), "goal states")


def test_provenance_names_template_and_dtype(tmp_path):
    told = make(tmp_path / "m").provenance()
    assert told["template"]["kind"] == "text"
    assert (told["dtype"], told["head"], told["activation"]) == ("float32", "scalar", "none")
    assert Lengths().provenance() == {"kind": "", "template": None}
