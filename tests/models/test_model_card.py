"""The model card: what it says, what it never says, and when it is left alone."""

import json
import re

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.data.template import Template
from rewardsteer.models.checkpoint import (
    CheckpointCard,
    MetricResult,
    fingerprint,
    load_tokenizer,
    read_card,
    write_card,
)
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.model_card import MARK, base_licence, hub_name, model_card
from rewardsteer.models.reward_model import RewardModel
from tests.fakes import save_tiny

HEADS = {
    "scalar": HeadConfig(), "mlp": HeadConfig(layers="mlp"),
    "vocabulary": HeadConfig(kind="vocabulary"),
}
LOADS = {
    "scalar": "AutoModelForSequenceClassification", "mlp": "value_head.safetensors",
    "vocabulary": "AutoModelForCausalLM",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("base") / "model")


def checkpoint(base, folder, kind="scalar", **fields):
    card = CheckpointCard(
        head=HEADS[kind], template=Template().model_dump(mode="json"), base_model=str(base),
        **fields)
    RewardModel.from_base(base, card.head).save_pretrained(folder, load_tokenizer(base), card)
    return folder


@pytest.mark.parametrize("kind", list(HEADS))
def test_says_what_is_known(kind, base, tmp_path):
    folder = checkpoint(
        base, tmp_path / "model", kind, objective="bradley_terry+goal_contrastive",
        data_fingerprint="abc123", data={"sources": ["hh"], "rows": {"train": 1303, "test": 332}},
        metrics=[MetricResult(
            name="accuracy", on="hh", value=0.602, low=0.549, high=0.654, count=332,
        )],
    )
    card = ModelCard.load(folder / "README.md")
    assert {"reward-model", "goal_contrastive"} <= set(card.data.tags)
    assert card.data.base_model is None
    assert card.data.eval_results[0].metric_value == 0.602
    for part in ("0.549 – 0.654", "1,303 train", "abc123", "Limits", LOADS[kind]):
        assert part in card.text, part
    others = set(LOADS.values()) - {LOADS[kind]}
    assert not [other for other in others if other in card.text]
    assert str(base) not in card.content
    for block in re.findall(r"```python\n(.*?)```", card.text, re.DOTALL):
        compile(block, "README.md", "exec")


def test_says_what_is_not_known():
    text = model_card(CheckpointCard(head=HeadConfig()))
    assert "Not measured yet" in text
    assert "untrained" in text
    assert "unknown; check it" in text


def test_a_base_on_the_hub():
    text = model_card(CheckpointCard(
        head=HeadConfig(), base_model="meta-llama/Llama-3.2-1B", base_on_hub=True))
    assert "base_model: meta-llama/Llama-3.2-1B" in text
    assert hub_name("meta-llama/Llama-3.2-1B") == "meta-llama/Llama-3.2-1B"
    assert hub_name("/home/somebody/model") is None
    assert hub_name("a/b/c") is None


def test_licence_of_the_base(tmp_path):
    assert base_licence(str(tmp_path)) == ""
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    assert base_licence(str(tmp_path)) == "mit"
    (tmp_path / "README.md").write_text("no block at all")
    assert base_licence(str(tmp_path)) == ""
    assert base_licence("nobody/has-this") == ""


def test_a_text_of_ones_own_is_kept(base, tmp_path):
    folder = checkpoint(base, tmp_path / "model")
    place = folder / "README.md"
    place.write_text(place.read_text().replace(MARK, "Mine."))
    write_card(folder, read_card(folder).model_copy(update={"objective": "partial"}))
    assert "Mine." in place.read_text()
    assert read_card(folder).objective == "partial"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command_adds_figures(base, tmp_path):
    folder = checkpoint(base, tmp_path / "model")
    mark = fingerprint(folder)
    figures = {"count": 40, "accuracy": 0.75, "accuracy_low": 0.6, "accuracy_high": 0.86}
    one, two = tmp_path / "preference", tmp_path / "correctness"
    for run_folder in (one, two):
        run_folder.mkdir()
    preference = {"fingerprint": mark, "all": figures, "subsets": {"none": figures}}
    (one / "metrics.json").write_text(json.dumps(preference))
    (two / "metrics.json").write_text(json.dumps({
        "gsm8k": {"solutions": 900, "auroc": 0.9, "auroc_low": 0.88, "auroc_high": 0.92},
        "svamp": {"solutions": 3, "undefined": "all right"},
    }))
    result = run("card", folder, "--evaluation", one, "--evaluation", two)
    assert result.exit_code == 0, result.output
    text = (folder / "README.md").read_text()
    assert "| accuracy | held-out pairs | 0.750 | 0.600 – 0.860 | 40 |" in text
    assert "| auroc | gsm8k: reward against the label | 0.900 | 0.880 – 0.920 | 900 |" in text
    assert "svamp" not in text
    assert fingerprint(folder) == mark
    preference["all"] |= {"accuracy": 0.8}
    (one / "metrics.json").write_text(json.dumps(preference))
    run("card", folder, "--evaluation", one)
    assert [metric.value for metric in read_card(folder).metrics] == [0.8, 0.9]


@pytest.mark.parametrize(("metrics", "message"), [
    ({"fingerprint": "other", "all": {}, "subsets": {}}, "are of the model other"),
    ({"x": 1}, "holds neither's figures"),
    (None, "cannot be read"),
])
def test_command_refuses(metrics, message, base, tmp_path):
    folder = checkpoint(base, tmp_path / "model")
    place = tmp_path / "run"
    place.mkdir()
    if metrics is not None:
        (place / "metrics.json").write_text(json.dumps(metrics))
    before = (folder / "README.md").read_text()
    result = run("card", folder, "--evaluation", place)
    assert result.exit_code == 2
    assert message in result.output
    assert (folder / "README.md").read_text() == before
