"""What is drawn from where nobody says, and extremes that scores cannot hold."""

import json

import pytest
import torch
from transformers import GenerationConfig
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.defaults import what_is_taken, with_defaults
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.methods import METHODS, asks_candidates
from rewardsteer.errors import ConfigError
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from tests.decoding.test_generate import PROMPTS, folders, make_policy, make_scorer  # noqa: F401
from tests.fakes import save_tiny

QWEN = GenerationConfig(
    do_sample=True, temperature=0.6, top_k=20, top_p=0.95, repetition_penalty=1.05, typical_p=0.9
)


def test_nothing_set_and_nothing_known():
    config = with_defaults(DecodingConfig())
    assert (config.temperature, config.top_k) == (1.0, 0)
    assert with_defaults(DecodingConfig(), GenerationConfig()) == config
    assert what_is_taken(DecodingConfig(), GenerationConfig()) == ""
    candidates = with_defaults(DecodingConfig(method="args"))
    assert (candidates.temperature, candidates.top_k) == (1.0, 10)


def test_the_policys_own_settings():
    config = with_defaults(DecodingConfig(), QWEN)
    assert (config.temperature, config.top_k) == (0.6, 20)
    assert what_is_taken(DecodingConfig(), QWEN) == (
        "The policy's generation settings: taken: temperature=0.6, top_k=20, top_p=0.95, "
        "repetition_penalty=1.05; not supported here: typical_p=0.9."
    )
    assert (config.top_p, config.min_p, config.repetition_penalty) == (0.95, 0.0, 1.05)
    candidates = with_defaults(DecodingConfig(method="pargs"), QWEN)
    assert (candidates.temperature, candidates.top_k) == (0.6, 10)
    assert what_is_taken(DecodingConfig(mode="greedy"), QWEN) == (
        "The policy's generation settings: taken: repetition_penalty=1.05; not supported here: "
        "typical_p=0.9."
    )
    own = GenerationConfig(min_p=0.1, min_new_tokens=3, top_p=None, temperature=0.0)
    config = with_defaults(DecodingConfig(), own)
    assert (config.min_p, config.min_tokens, config.top_p, config.temperature) == (0.1, 3, 1.0, 1.0)


def test_what_was_set_stays():
    given = DecodingConfig(
        temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, min_tokens=0
    )
    assert with_defaults(given, QWEN) == given
    assert "taken" not in what_is_taken(given, QWEN)
    once = with_defaults(DecodingConfig(top_k=7), QWEN)
    assert (once.temperature, once.top_k) == (0.6, 7)
    assert with_defaults(once, GenerationConfig(temperature=0.1)) == once


def test_which_methods_ask_about_candidates():
    assert [name for name in METHODS.names() if asks_candidates(name)] == ["args", "cd", "pargs"]
    assert not asks_candidates("unheard_of")


@pytest.mark.parametrize("own", [GenerationConfig(), QWEN])
def test_generate_and_the_server_draw_from_the_same(folders, own):  # noqa: F811
    policy, tokenizer = make_policy(eos_bias=-1.0)
    policy.generation_config = own
    expected = {
        "temperature": own.temperature or 1.0, "top_k": own.top_k or 0, "top_p": own.top_p or 1.0,
        "repetition_penalty": own.repetition_penalty or 1.0,
    }
    open_, set_ = ({"max_new_tokens": 12, "seed": 3} | more for more in ({}, expected))
    found = [
        [one.token_ids for one in generate(
            policy, tokenizer, PROMPTS, build_method(config), config
        )] for config in (DecodingConfig(**open_), DecodingConfig(**set_))
    ]
    assert found[0] == found[1]
    scorer = make_scorer(folders["llama"], "vocabulary")
    served = ServedModels(
        policy, tokenizer, scorer, DecodingConfig(method="farma"), ServingConfig()
    )
    assert {name: getattr(served.defaults, name) for name in expected} == expected
    assert {name: served.start_of("none")[name] for name in expected} == expected
    # Some token beyond the ten best is drawn where nobody limits them.
    policy.generation_config = GenerationConfig()
    logits = policy(torch.tensor([tokenizer.encode(PROMPTS[0])])).logits[0, -1]
    ten = set(logits.topk(10).indices.tolist())
    firsts = {
        next(generate(policy, tokenizer, PROMPTS[:1], build_method(config), config)).token_ids[0]
        for config in (DecodingConfig(max_new_tokens=1, seed=seed) for seed in range(40))
    }
    assert firsts - ten


def test_temperature_0_is_greedy(tmp_path):
    assert DecodingConfig(temperature=0).mode == "greedy"
    assert DecodingConfig(temperature=0.0, mode="sample").mode == "greedy"
    folder, prompts = save_tiny(tmp_path / "policy"), tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "What?"}) + "\n")
    texts = []
    for number, option in enumerate((("--temperature", "0"), ("--greedy",))):
        output = tmp_path / f"{number}.jsonl"
        result = CliRunner().invoke(app, [
            "generate", "--model", str(folder), "--prompts", str(prompts), "--output", str(output),
            "--max-new-tokens", "6", *option,
        ])
        assert result.exit_code == 0, result.output
        texts.append(json.loads(output.read_text())["token_ids"])
    assert texts[0] == texts[1]


def test_the_commands_options(tmp_path):
    folder, prompts = save_tiny(tmp_path / "policy"), tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "What?"}) + "\n")
    output = tmp_path / "y.jsonl"
    words = [
        "generate", "--model", str(folder), "--prompts", str(prompts), "--output", str(output),
        "--max-new-tokens", "6", "--top-p", "0.5", "--min-p", "0.1", "--repetition-penalty", "1.2",
        "--stop", "ab", "--stop", "c", "--set", "logit_bias.20=100", "--set", "min_tokens=2",
    ]
    for more in ([], ["--resume"]):
        result = CliRunner().invoke(app, words + more)
        assert result.exit_code == 0, result.output
    used = json.loads((tmp_path / "y.jsonl.settings.json").read_text())
    assert used["top_p"] == 0.5
    assert used["stop"] == ["ab", "c"]
    assert used["logit_bias"] == {"20": 100.0}
    assert json.loads(output.read_text())["token_ids"] == [20] * 6
    result = CliRunner().invoke(app, [*words, "--overwrite", "--top-p", "1.5"])
    assert result.exit_code != 0
    assert "top_p" in result.output


def test_the_command_says_what_it_takes(tmp_path):
    folder, prompts = save_tiny(tmp_path / "policy"), tmp_path / "prompts.jsonl"
    QWEN.save_pretrained(folder)
    prompts.write_text(json.dumps({"prompt": "What?"}) + "\n")
    result = CliRunner().invoke(app, [
        "generate", "--model", str(folder), "--prompts", str(prompts), "--output",
        str(tmp_path / "y.jsonl"), "--max-new-tokens", "2", "--temperature", "0.5",
    ])
    assert result.exit_code == 0, result.output
    assert result.output.count("The policy's generation settings: taken: top_k=20, top_p") == 1
    used = json.loads((tmp_path / "y.jsonl.settings.json").read_text())
    assert (used["temperature"], used["top_k"]) == (0.5, 20)


@pytest.mark.parametrize(("name", "value"), [
    ("weight", 1e39), ("weight", -1e39), ("weight", 1e21), ("weight", float("nan")),
    ("weight", float("inf")), ("weight_end", 1e39), ("temperature", 1e-40), ("temperature", 1e-7),
    ("temperature", 1e39), ("temperature", -1.0), ("temperature", float("nan")),
])
def test_extremes_that_scores_cannot_hold(name, value):
    more = {"weight_schedule": "linear"} if name == "weight_end" else {}
    with pytest.raises(ConfigError, match=name):
        DecodingConfig(**{name: value}, **more)


@pytest.mark.parametrize("settings", [
    {"weight": 1e20}, {"weight": -1e20}, {"temperature": 1e-6}, {"temperature": 1e6},
    {"weight": 1e20, "temperature": 1e-6}, {"weight": 1e20, "temperature": 1e6},
])
@pytest.mark.parametrize("name", ["farma", "args"])
def test_the_largest_that_are_taken_are_right_or_fail(folders, name, settings):  # noqa: F811
    """Never a token out of scores that are no numbers."""
    policy, tokenizer = make_policy()
    head = "vocabulary" if name == "farma" else "scalar"
    scorer = make_scorer(folders["llama"], head)
    config = DecodingConfig(method=name, max_new_tokens=6, seed=1, top_k=10, **settings)
    sample = list(generate(policy, tokenizer, PROMPTS, build_method(config, scorer), config))
    best = config.model_copy(update={"mode": "greedy"})
    greedy = list(generate(policy, tokenizer, PROMPTS, build_method(best, scorer), best))
    if settings.get("temperature") == 1e6:
        assert len({tuple(one.token_ids) for one in sample}) == len(PROMPTS)
        return
    for one, other in zip(sample, greedy, strict=True):
        assert one.error is None
        assert one.token_ids == other.token_ids


@pytest.mark.parametrize("factor", [1e12, 1e25])
def test_scores_beyond_the_range_fail(folders, factor):  # noqa: F811
    policy, tokenizer = make_policy()
    scorer = make_scorer(folders["llama"], "vocabulary")
    with torch.no_grad():
        scorer.reward_model.carrier.get_output_embeddings().weight.mul_(factor)
    config = DecodingConfig(method="farma", max_new_tokens=3, weight=1e20)
    results = list(generate(policy, tokenizer, PROMPTS, build_method(config, scorer), config))
    assert all("leave float32's range" in one.error for one in results)
