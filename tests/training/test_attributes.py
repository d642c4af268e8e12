"""A reward model of several attributes: trained, saved as an ordinary classifier, scored."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rewardsteer import train
from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.training.recipes import read_recipe
from tests.fakes import save_tiny

WEIGHTS = {"length": 0.75, "digits": -0.5}
HEAD = {"kind": "attributes", "attributes": [*WEIGHTS], "weights": [*WEIGHTS.values()]}
TEXTS = ["a", "a1", "aaaa", "11", "a1a1a1", "aaa1"]


def rows():
    """Responses whose attributes are seen in them; one of two is now and then not known."""
    for number in range(24):
        text = TEXTS[number % 6] + "a" * (number // 12)
        yield {
            "prompt": f"say {number % 8}", "response": text, "length": len(text) / 4,
            "digits": None if number % 5 == 0 else sum(map(str.isdigit, text)) / 2,
        }


def settings(**changes):
    return {
        "head": HEAD,
        "phases": [{"objective": [{
            "name": "regression", "options": {"attributes": list(WEIGHTS)},
        }]}],
        "data": {
            "template": {"kind": "text"}, "sources": [
                {"name": "ratings", "options": {"attributes": list(WEIGHTS)}},
            ],
        },
        "optimiser": {"max_steps": 150, "learning_rate": 3e-3, "precision": "fp32"},
        "log": {"progress": False, "print_logs": False},
    } | changes


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    file = out / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    config = settings()
    config["data"]["sources"][0]["path"] = str(file)
    train("attributes", base, output_dir=out / "run", **config)
    return out / "run"


def test_it_learns_its_attributes(trained):
    (phase,) = json.loads((trained / "result.json").read_text())["phases"]
    assert phase["eval_pearson"] > 0.8
    assert {f"eval_{figure}_{name}" for figure in ("pearson", "spearman") for name in WEIGHTS} <= (
        phase.keys()
    )


def test_the_folder_is_a_classifier_that_names_its_labels(trained):
    folder = trained / "model"
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert plain.config.id2label == {0: "length", 1: "digits"}
    assert plain.config.attribute_weights == [0.75, -0.5]
    scorer = load_scorer(folder)
    prompts, texts = ["say 1"] * len(TEXTS), TEXTS
    found = scorer.score(prompts, texts)
    prompt_ids, response_ids = scorer.encode(prompts, texts)
    for reward, before, behind in zip(found, prompt_ids, response_ids, strict=True):
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([[*before, *behind]])).logits[0]
        assert reward == pytest.approx(float(0.75 * logits[0] - 0.5 * logits[1]), abs=1e-5)
    assert "attributes: length 0.75, digits -0.5" in (folder / "README.md").read_text()


def test_other_weights_and_single_attributes(trained):
    folder = trained / "model"
    prompts = ["say 1"] * len(TEXTS)
    scorer = load_scorer(folder)
    own = scorer.score(prompts, TEXTS)
    assert scorer.provenance()["attribute_weights"] == WEIGHTS
    model = RewardModel.from_pretrained(folder)
    assert model.head.gives >= {"attributes"}
    whole = Scorer(model, scorer.tokenizer, scorer.template)
    np.testing.assert_allclose(whole.score(prompts, TEXTS), own, atol=1e-5)
    attributes = scorer.attributes(prompts, TEXTS)
    assert list(attributes) == list(WEIGHTS)
    length = load_scorer(folder, weights={"length": 1.0})
    np.testing.assert_allclose(length.score(prompts, TEXTS), attributes["length"], atol=1e-5)
    assert length.template == scorer.template


def test_training_goes_on_from_it_with_the_same_attributes_alone(trained):
    folder = trained / "model"
    config = HeadConfig.model_validate(HEAD)
    one, other = RewardModel.from_base(folder, config), RewardModel.from_pretrained(folder)
    torch.testing.assert_close(one.carrier.score.weight, other.carrier.score.weight)
    others = HeadConfig.model_validate(HEAD | {"attributes": ["digits", "length"]})
    with pytest.raises(CheckpointError, match="of the attributes length, digits, and digits, leng"):
        RewardModel.from_base(folder, others)


def test_what_does_not_fit_is_refused(base, tmp_path):
    with pytest.raises(ConfigError, match="of the attributes length, digits, the head of digits"):
        train("attributes", base, list(rows()), output_dir=tmp_path / "a", **settings(
            head=HEAD | {"attributes": ["digits", "length"]},
        ))
    with pytest.raises(ConfigError, match="needs attributes, which a scalar head does not give"):
        train("attributes", base, list(rows()), output_dir=tmp_path / "b", **settings(
            head={"kind": "scalar", "attributes": [], "weights": []},
        ))
    for change, message in (
        ({"attributes": [], "weights": []}, "at least two"),
        ({"attributes": ["one"], "weights": [1.0]}, "at least two"),
        ({"layers": "mlp"}, "is linear"), ({"weights": [1.0]}, "got 1 for length, digits"),
        ({"attributes": ["a", "b", "a"], "weights": [1.0] * 3}, "different attributes"),
        ({"kind": "scalar"}, "a scalar head has no attributes"),
    ):
        with pytest.raises(ValueError, match=message):
            HeadConfig.model_validate(HEAD | change)


def test_cards_of_other_heads_stay_as_they_were():
    assert "attributes" not in HeadConfig().model_dump(mode="json")
    recipe = HeadConfig.model_validate(read_recipe("ratings/attributes")["head"])
    assert recipe.outputs == 5
    assert HeadConfig.model_validate(recipe.model_dump(mode="json")) == recipe
