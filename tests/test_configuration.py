"""Settings and what a mistake answers; output files that are never half-written."""

import json
import re

import pytest
from pydantic import Field

from rewardsteer.configuration import Config, load_config, read_yaml, save_config
from rewardsteer.data.config import DataConfig
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.demo.config import DemoConfig
from rewardsteer.distillation.config import DistilConfig
from rewardsteer.errors import ConfigError, DataError, OutputError
from rewardsteer.evaluation.correctness.config import CorrectnessConfig
from rewardsteer.goals.config import GoalConfig
from rewardsteer.outputs import (
    append_jsonl,
    claim_folder,
    read_json,
    read_jsonl,
    repair_jsonl,
    write_json,
    write_text,
)
from rewardsteer.registry import Registry
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.policy_config import PolicyConfig


class Inner(Config):
    rate: float = 1.0
    names: list[str] = Field(default_factory=list)


class Outer(Config):
    inner: Inner = Inner()
    parts: list[Inner] = Field(default_factory=list)
    count: int = 1


def test_overrides_reach_into_mappings_and_lists(tmp_path):
    (tmp_path / "c.yaml").write_text("parts: [{rate: 2}, {rate: 3}]\ninner: {names: [a]}\n")
    config = load_config(
        Outer, tmp_path / "c.yaml", ["inner.rate=1e-5", "parts.1.rate=4", "inner.names=[b, c]"]
    )
    assert config.inner == Inner(rate=1e-5, names=["b", "c"])
    assert [part.rate for part in config.parts] == [2, 4]
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(Outer, tmp_path / "saved.yaml") == config


@pytest.mark.parametrize(("override", "message"), [
    ("inner.rat=1", r"Unknown setting 'inner.rat'. Did you mean 'rate'"),
    ("parts.0.nam=1", "Unknown setting 'parts.0.nam'"),
    ("parts.9.rate=1", "names an item of a list that has fewer"),
    ("count=x", "'count' is wrong"),
    ("count", "dotted.name=value"),
])
def test_mistakes_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(Outer, {"parts": [{"rate": 1}]}, [override])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: DecodingConfig(wieght=2), r"Unknown setting 'wieght'\. Did you mean 'weight'\? "),
    (lambda: DecodingConfig(weight="much"), "^The setting 'weight' is wrong: expected a number"),
    (lambda: Outer(count=2, parts=[{"rat": 1}]), r"Unknown setting 'parts\.0\.rat'\. Did you mean"),
    (lambda: Outer(count=2, parts=[Inner(rat=1)]), "^Unknown setting 'rat'"),
    (lambda: TrainConfig(base_model="x"), "^The setting 'phases' is required"),
])
def test_settings_made_in_python_are_explained_too(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "name", "expected"), [
    (Outer, "count", "a whole number"), (Inner, "rate", "a number"),
    (TrainConfig, "seed", "a whole number"), (DecodingConfig, "top_k", "a whole number"),
    (DecodingConfig, "temperature", "a number"), (DemoConfig, "seed", "a whole number"),
])
def test_true_is_no_number(kind, name, expected):
    with pytest.raises(ConfigError, match=f"'{name}' is wrong: expected {expected}, got true"):
        load_config(kind, {name: True})


def test_true_stays_where_it_is_meant():
    assert load_config(DecodingConfig, {}, ["ignore_eos=true"]).ignore_eos is True


def test_bad_yaml_files(tmp_path):
    (tmp_path / "a.yaml").write_text("a: [1")
    (tmp_path / "b.yaml").write_text("- 1")
    for name, message in (("a", "not valid YAML"), ("b", "must hold a mapping"), ("c", "be read")):
        with pytest.raises(ConfigError, match=message):
            load_config(Outer, tmp_path / f"{name}.yaml")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    place = tmp_path / "a.json"
    write_json(place, {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(place, {"x": float("nan")})
    assert read_json(place) == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    write_text(place, "{oops")
    with pytest.raises(DataError, match="not valid JSON"):
        read_json(place)


def test_a_torn_last_line_is_cut_off(tmp_path):
    place = tmp_path / "a.jsonl"
    assert repair_jsonl(place) == 0
    append_jsonl(place, [json.dumps({"x": 1}), json.dumps({"x": 2})])
    with place.open("a") as stream:
        stream.write('{"x": ')
    assert repair_jsonl(place) == 2
    assert [row for _, row in read_jsonl(place)] == [{"x": 1}, {"x": 2}]


def test_claiming_a_folder(tmp_path):
    folder = tmp_path / "out"
    claim_folder(folder)
    claim_folder(folder)
    (folder / "a").write_text("x")
    with pytest.raises(OutputError, match="--resume"):
        claim_folder(folder, resume=False)
    claim_folder(folder, resume=True)
    assert (folder / "a").exists()
    claim_folder(folder, overwrite=True)
    assert not (folder / "a").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        claim_folder(tmp_path / "file")


def test_overwrite_never_deletes_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "precious").write_text("x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="Refusing to delete"):
        claim_folder(tmp_path, overwrite=True)
    assert (tmp_path / "precious").exists()


def test_registry_lists_what_it_knows():
    registry = Registry("thing", {"dumps": "json:dumps"})
    assert registry.get("dumps") is json.dumps
    with pytest.raises(ConfigError, match=r"Unknown thing 'dump'. Did you mean 'dumps'"):
        registry.get("dump")


@pytest.mark.parametrize(("text", "words"), [
    ("b: [1, 2\nc: {x\n", "line 2, column 2: expected ',' or ']', but got ':'"),
    ("a:\n\tb: 1\n", "line 2, column 1: found character"),
    ("a: 1\nb: {c: 1, d: 2, c: 3}\n", "line 2, column 17: the key 'c' stands there twice"),
])
def test_a_fault_of_yaml_is_one_line_with_its_place(tmp_path, text, words):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "x.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert f"{tmp_path / 'x.yaml'} is not valid YAML, {words}" in message
    assert message.endswith("; correct the file there.")


def test_faults_of_overrides_are_one_line():
    with pytest.raises(ConfigError) as caught:
        load_config(DecodingConfig, {"method": "none"}, ["stop=[a"])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("The setting 'stop=[a' cannot be read: ")


@pytest.mark.parametrize(("override", "message"), [
    ("temperature=-1", "the temperature must be above 0; 0 (--greedy) takes the likeliest"),
    ("temperature=1e-9", "'temperature' is wrong: expected more than 0, got 1e-09"),
    ("top_p=2", "'top_p' is wrong: expected at most 1, got 2"),
    ("n=0", "'n' is wrong: expected at least 1, got 0"),
])
def test_bounds_are_told_in_words(override, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(DecodingConfig, {"method": "none"}, [override])


SEEDED = [
    (TrainConfig, {
        "base_model": "m", "prepared": "x", "phases": [{"objective": [{"name": "partial"}]}],
    }),
    (PolicyConfig, {}), (DataConfig, {"source": "pairs"}), (GoalConfig, {}),
    (CorrectnessConfig, {}), (DemoConfig, {}),
    (DistilConfig, {"policy": "p", "teacher": "t", "prompts": "x"}),
]


@pytest.mark.parametrize(("kind", "values"), SEEDED)
def test_seeds_are_what_every_generator_takes(kind, values):
    assert load_config(kind, values, ["seed=7"]).seed == 7
    for wrong in (-1, 2**31, 0.5):
        with pytest.raises(ConfigError, match="'seed' is wrong"):
            load_config(kind, values, [f"seed={wrong}"])
