"""Our own process reward models: steps, aggregates and beginnings against one pass per prefix."""

import json

import numpy as np
import pytest
import torch

from rewardsteer.data.config import DataConfig
from rewardsteer.data.prepare import prepare
from rewardsteer.data.store import load_set
from rewardsteer.data.template import Template
from rewardsteer.errors import ConfigError, DataError, NonFiniteError
from rewardsteer.models.aggregation import aggregate_steps
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.process_scorer import ProcessScorer
from rewardsteer.models.reward_model import RewardModel
from tests.chat import chat_tokenizer, save_policy
from tests.fakes import character_tokenizer, save_tiny

PROMPTS = ["What is 2+3?", "What is 2+3?", "Is 7 prime?"]
STEPS = [["2+3 = 5.", "So 5."], ["2+3 = 6.", "6-1 = 5.", "It is 5."], ["Yes."]]
AGGREGATIONS = ["min", "last", "product", "mean"]


@pytest.fixture(scope="module", params=["text", "chat"])
def folder(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    if request.param == "text":
        base, tokenizer = save_tiny(place / "base"), character_tokenizer()
    else:
        base, tokenizer = save_policy(place / "base", "qwen"), chat_tokenizer("qwen")
    torch.manual_seed(1)
    model = RewardModel.from_base(base, HeadConfig(kind="scalar")).eval()
    torch.nn.init.normal_(model.carrier.score.weight, std=0.3)
    card = CheckpointCard(
        head=HeadConfig(), objective="process", reading="step_logit",
        template=Template(kind=request.param).model_dump(mode="json"),
    )
    model.save_pretrained(place / "model", tokenizer, card)
    return place / "model"


def load(folder, **options):
    return load_scorer(folder, device="cpu", dtype=torch.float32, **options)


def plain(scorer, ids):
    """σ of the classifier's own logit of one unpadded row."""
    with torch.no_grad():
        hidden = scorer.reward_model.backbone(torch.tensor([ids])).last_hidden_state
        return float(scorer.reward_model.carrier.score(hidden)[0, -1, 0].sigmoid())


def test_a_step_is_read_behind_its_separator_and_the_last_one_at_the_end(folder):
    scorer = load(folder)
    assert isinstance(scorer, ProcessScorer)
    assert scorer.reads_tokens
    found = scorer.step_scores(PROMPTS, STEPS)
    for prompt, steps, values in zip(PROMPTS, STEPS, found, strict=True):
        expected = []
        for at in range(len(steps)):
            text = "\n\n".join(steps[: at + 1])
            closed = at + 1 == len(steps)
            before, ids = scorer.encode(
                [prompt], [text if closed else text + "\n\n"], closed=closed
            )
            expected.append(plain(scorer, before[0] + ids[0]))
        np.testing.assert_allclose(values, expected, atol=1e-5)
    assert np.ptp(np.concatenate(found)) > 1e-2


def test_steps_are_read_where_training_reads_them(folder, tmp_path):
    scorer = load(folder)
    rows = [
        {"prompt": prompt + "?" * at, "completions": steps, "labels": [True] * len(steps)}
        for at, (prompt, steps) in enumerate(zip(PROMPTS, STEPS, strict=True))
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"name": "stepwise", "path": str(tmp_path / "rows.jsonl")}
    config = DataConfig(source=source, template=scorer.template, test_fraction=0.4)
    prepare(config, scorer.tokenizer, tmp_path / "data")
    trained = {}
    for split in ("train", "test"):
        for row in load_set(tmp_path / "data", split, "partial"):
            trained[row["id"]] = [
                plain(scorer, row["prompt_ids"] + row["chosen_ids"][:length])
                for length in row["step_lengths"]
            ]
    found = scorer.step_scores([row["prompt"] for row in rows], STEPS)
    for number, values in enumerate(found):
        np.testing.assert_allclose(values, trained[f"stepwise-train-{number}"], atol=1e-5)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_a_text_is_worth_the_aggregate_of_its_steps(folder, name):
    scorer = load(folder, aggregate=name)
    expected = [aggregate_steps(values, name) for values in scorer.step_scores(PROMPTS, STEPS)]
    texts = ["\n\n".join(steps) for steps in STEPS]
    np.testing.assert_allclose(scorer.score(PROMPTS, texts), expected, atol=1e-6)
    # More white space between steps is no further step.
    wide = scorer.score(PROMPTS[1:2], ["\n\n\n ".join(STEPS[1])])
    assert len(wide) == 1
    assert scorer.provenance()["aggregation"] == name
    assert scorer.provenance()["activation"] == "sigmoid"


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_every_beginning_is_worth_its_steps_and_the_one_under_way(folder, name):
    scorer = load(folder, aggregate=name)
    texts = ["\n\n".join(steps) for steps in STEPS]
    prompt_ids, response_ids = scorer.encode(PROMPTS, texts)
    tokens = scorer.token_scores_ids(prompt_ids, response_ids)
    np.testing.assert_allclose(
        [one.rewards[-1] for one in tokens], scorer.score(PROMPTS, texts), atol=1e-6
    )
    prompt, ids = prompt_ids[1], response_ids[1]
    ends = [
        at + 1 for at in range(len(ids)) if scorer.tokenizer.decode(ids[: at + 1]).endswith("\n\n")
    ]
    for length in range(1, len(ids) + 1):
        before = [plain(scorer, prompt + ids[:end]) for end in ends if end < length]
        expected = aggregate_steps([*before, plain(scorer, prompt + ids[:length])], name)
        assert tokens[1].rewards[length - 1] == pytest.approx(expected, abs=1e-5)
        alone = scorer.score_ids([prompt], [ids[:length]])[0]
        assert alone == pytest.approx(expected, abs=1e-5)


def test_batches_and_order_do_not_matter(folder):
    scorer = load(folder)
    alone = scorer.step_scores(PROMPTS, STEPS, batch_size=1)
    together = scorer.step_scores(PROMPTS[::-1], STEPS[::-1], batch_size=3)[::-1]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_an_unfinished_text_is_scored_as_it_stands(folder):
    scorer = load(folder, aggregate="last")
    for text in ("2+3 = 5.\n\n", "2+3 = 5.\n\nSo"):
        before, ids = scorer.encode(PROMPTS[:1], [text], closed=False)
        found = scorer.score(PROMPTS[:1], [text], closed=False)[0]
        assert found == pytest.approx(plain(scorer, before[0] + ids[0]), abs=1e-5)


def test_steps_may_be_divided_otherwise(folder):
    scorer = load(folder, split="; ", aggregate="mean")
    found = scorer.score(PROMPTS[:1], ["2+3 = 5.; So 5."])
    assert found[0] == pytest.approx(scorer.step_scores(PROMPTS[:1], STEPS[:1])[0].mean(), abs=1e-6)


@pytest.mark.parametrize(("options", "message"), [
    ({"aggregate": "median"}, "Unknown aggregation 'median'"), ({"split": ""}, "split must be"),
])
def test_wrong_options_are_refused(folder, options, message):
    with pytest.raises(ConfigError, match=message):
        load(folder, **options)


@pytest.mark.parametrize(("steps", "message"), [
    ([[]], "Row 1 has no step"), ([["a", ""]], "Row 1: step 2 is empty"),
    ([["a"] * 600], "Row 1 has .* tokens"),
])
def test_what_are_no_steps_is_refused(folder, steps, message):
    with pytest.raises(DataError, match=message):
        load(folder).step_scores(["What?"], steps)


def test_values_that_are_no_numbers_are_refused(folder):
    scorer = load(folder)
    scorer.reward_model.carrier.score.weight.data[:] = float("nan")
    with pytest.raises(NonFiniteError):
        scorer.step_scores(PROMPTS, STEPS)
    with pytest.raises(NonFiniteError):
        scorer.score(PROMPTS, ["a", "b", "c"])
