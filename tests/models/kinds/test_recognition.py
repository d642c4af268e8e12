"""Which kind a folder is recognised as, kinds from elsewhere, and what is refused."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.models.kinds import KINDS, load_scorer
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import describe_folder
from rewardsteer.models.kinds.recognition import find_kind, recognise
from rewardsteer.models.text_scorer import TextScorer
from tests.chat import save_classifier
from tests.fakes import save_tiny


class Constant(TextScorer):
    """Every completion has the same reward."""

    def __init__(self, name, value):
        self.name, self.value = name, value

    def score(self, prompts, completions, *, batch_size=16, closed=True):
        return np.full(len(completions), self.value)


class ConstantKind(Kind):
    """A kind from outside the package, of a name that is no folder."""

    in_folder = False

    @classmethod
    def load(cls, folder, *, device, dtype, template, value=1.0, **options):
        return Constant(folder.name, value)


def change_config(folder, **changes):
    place = folder / "config.json"
    config = json.loads(place.read_text()) | changes
    place.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


def test_a_plain_classifier(tmp_path):
    folder = save_classifier(tmp_path / "m", "gemma")
    assert find_kind(folder)[0] == "classifier"
    scorer = load_scorer(folder, device="cpu")
    assert scorer.kind == "classifier"
    assert scorer.provenance()["kind"] == "classifier"


def test_a_description_has_the_shapes_of_all_weights(tmp_path):
    folder = save_classifier(tmp_path / "m", "gemma")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    found = describe_folder("m", folder)
    assert found.tensors == {name: tuple(v.shape) for name, v in model.state_dict().items()}
    assert found.labels == ["LABEL_0"]
    assert found.tokenizer["eos_token"] == "<eos>"


def test_a_kind_from_elsewhere():
    scorer = load_scorer("anywhere", kind=f"{__name__}:ConstantKind", value=2.5)
    assert scorer.score(["a"], ["b"]).tolist() == [2.5]
    assert (scorer.name, scorer.kind) == ("anywhere", f"{__name__}:ConstantKind")


def test_unknown_kinds_name_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"'clasifier'.* Did you mean 'classifier'"):
        load_scorer(tmp_path, kind="clasifier")


def test_a_language_model_is_refused_with_what_was_seen(tmp_path):
    folder = save_tiny(tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"got LlamaForCausalLM .*kind='farma' \(--kind\)"):
        load_scorer(folder)


def test_code_of_its_own_is_named(tmp_path):
    folder = change_config(
        save_tiny(tmp_path / "m"), auto_map={"AutoModel": "modeling_x.XReward"},
        architectures=["XReward"],
    )
    with pytest.raises(CheckpointError, match=r"its own \(modeling_x.XReward\), which is not run"):
        load_scorer(folder)


@pytest.mark.parametrize("damage", ["config", "list", "labels", "header", "cut"])
def test_damaged_folders_are_a_sentence(tmp_path, damage):
    folder = save_classifier(tmp_path / "m", "gemma")
    weights = folder / "model.safetensors"
    if damage == "config":
        (folder / "config.json").write_text("{")
    elif damage == "list":
        (folder / "config.json").write_text("[]")
    elif damage == "labels":
        change_config(folder, id2label={"a": "b"})
    elif damage == "header":
        weights.write_bytes(b"\x10" + b"\0" * 7 + b"x" * 40)
    else:
        weights.write_bytes(weights.read_bytes()[:20])
    with pytest.raises(CheckpointError, match="damaged"):
        load_scorer(folder)


def test_an_empty_folder_and_a_pickle(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        load_scorer(tmp_path)
    folder = save_classifier(tmp_path / "m", "gemma")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickle"):
        load_scorer(folder)


def test_a_head_that_is_missing_is_never_drawn_anew(tmp_path):
    folder = save_classifier(tmp_path / "m", "gemma")
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"score\.weight"):
        load_scorer(folder, device="cpu")


def test_two_kinds_that_recognise_one_folder_are_named(tmp_path, monkeypatch):
    folder = describe_folder("m", save_classifier(tmp_path / "m", "gemma"))
    monkeypatch.setattr(KINDS.get("adapter"), "recognises", classmethod(lambda *_: True))
    with pytest.raises(CheckpointError, match="could be of the kinds adapter and classifier"):
        recognise(folder)


def test_a_model_in_a_subfolder(tmp_path):
    """Weights, tokenizer and configuration are all read there."""
    save_classifier(tmp_path / "repository", "llama3", seed=1)
    inner = save_classifier(tmp_path / "repository" / "last", "gemma", seed=2)
    scorer = load_scorer(tmp_path / "repository", subfolder="last", device="cpu")
    alone = load_scorer(inner, device="cpu")
    assert scorer.score(["a"], ["b"]) == alone.score(["a"], ["b"])
    assert (scorer.name, scorer.fingerprint) == (alone.name, alone.fingerprint)
    with pytest.raises(CheckpointError, match=r"model folder at .*first, there is none"):
        load_scorer(tmp_path / "repository", subfolder="first")
