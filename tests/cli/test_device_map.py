"""`--device-map` of generate and serve."""

import json

import pytest

from rewardsteer.cli.devices import parse_device_map
from rewardsteer.cli.engines import EngineOptions
from rewardsteer.cli.serve import _load
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.choice import EngineChoice
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.errors import ConfigError
from rewardsteer.serving.config import ServingConfig
from tests.cli.test_bad_input import refused, run
from tests.fakes import character_tokenizer, save_tiny


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("spread") / "policy", seed=1)


def test_generations_are_those_of_one_device(policy, tmp_path):
    options = ("generate", "--model", policy, "--prompt", "What is 7+8?", "--max-new-tokens", 6)
    assert run(*options, "--output", tmp_path / "one.jsonl").exit_code == 0
    spread = run(*options, "--output", tmp_path / "map.jsonl", "--device-map", "{'': cpu}")
    assert spread.exit_code == 0, spread.output
    one, other = (
        json.loads((tmp_path / name).read_text()) for name in ("one.jsonl", "map.jsonl")
    )
    assert one["token_ids"] == other["token_ids"]


def test_the_policy_stays_where_the_map_puts_it(policy, monkeypatch):
    """It is loaded with the map, and not moved afterwards."""
    from transformers import AutoModelForCausalLM

    real, maps = AutoModelForCausalLM.from_pretrained, []

    def spread(*arguments, **options):
        maps.append(options.get("device_map"))
        found = real(*arguments, **options)
        model = found[0] if isinstance(found, tuple) else found
        monkeypatch.setattr(type(model), "to", lambda *_: pytest.fail("it was moved"))
        return found

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", spread)
    options = {"device": "auto", "dtype": None}
    TransformersEngine.open(
        str(policy), character_tokenizer(), DecodingConfig(), **options, device_map="auto"
    )
    choice = EngineChoice("transformers", str(policy), options | {"device_map": "balanced"})
    _load(
        choice, str(policy), None, ServingConfig(), method=None, name=None, template=None,
        settings={}, running=EngineOptions(), of_kind={"kind": None},
        draft_model=None, gate_model=None,
    )
    assert maps == ["auto", "balanced"]


@pytest.mark.parametrize("text", ["auto", "balanced", "balanced_low_0", "sequential"])
def test_maps_by_name(text):
    assert parse_device_map(text, "auto", "transformers") == {"device_map": text}
    assert parse_device_map(None, "cpu", "vllm") == {}


@pytest.mark.parametrize(("options", "parts"), [
    (("--device-map", "auto", "--device", "cpu"), ("--device cpu", "leave out one of the two")),
    (("--device-map", "autoo"), ("Unknown --device-map 'autoo'", "balanced")),
    (("--device-map", "{a: [1]}"), ("Unknown --device-map",)),
    (("--device-map", "{a"), ("Unknown --device-map",)),
    (("--device-map", "auto", "--engine", "vllm"), ("transformers engine", "--vllm-option")),
])
def test_refused(policy, tmp_path, options, parts):
    refused(run("serve", "--model", policy, *options), *parts)
    prompted = ("--prompt", "a", "--output", tmp_path / "y.jsonl")
    refused(run("generate", "--model", policy, *prompted, *options), *parts)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_map_is_refused_before_anything_loads():
    with pytest.raises(ConfigError, match="expected one of auto"):
        parse_device_map("cuda:0", "auto", "transformers")
