"""`rewardsteer evaluate generation` as a user meets it."""

import json
import re
import sys

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from tests.evaluation.test_judge import Server, says
from tests.fakes import CHARACTERS, character_tokenizer, save_tiny


def run(*arguments):
    command = ["evaluate", "generation", *(str(argument) for argument in arguments)]
    return CliRunner().invoke(app, command)


def refused(result, *words):
    assert result.exit_code == 2, result.output
    for word in words:
        assert word in " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    base = save_tiny(root / "base")
    for kind in ("scalar", "vocabulary"):
        head = HeadConfig(kind=kind)
        RewardModel.from_base(base, head).save_pretrained(
            root / kind, load_tokenizer(base), CheckpointCard(head=head)
        )
    prompts = root / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"{i}+{i}=", "id": f"q{i}"}) + "\n"
                               for i in range(4)))
    methods = root / "methods.yaml"
    shape = "max_new_tokens: 5, top_k: 4, batch_size: 2"
    methods.write_text(f"""
        none: {{method: none, {shape}}}
        best: {{method: best_of_n, {shape}, reward_model: {root / "scalar"}}}
        farma: {{method: farma, {shape}, reward_model: {root / "vocabulary"}}}
        both: {{method: args, {shape}, reward_model: [{root / "scalar"}, {root / "scalar"}],
                reward_weights: [1, -0.5]}}
    """)
    return root


def usual(world, out, *more, methods="methods.yaml"):
    return run(
        "--model", world / "base", "--prompts", world / "prompts.jsonl", "--methods",
        world / methods if methods.endswith("yaml") else methods, "--judge", world / "scalar",
        "--out", out, *more,
    )


def test_budget_sweep_and_baseline(world, tmp_path):
    out = tmp_path / "out"
    options = ("--budget", "tokens", "--budget-per-prompt", "60", "--weights", "0.5,2",
               "--baseline", "best")
    result = usual(world, out, *options)
    assert result.exit_code == 0, result.output
    content = json.loads((out / "summary.json").read_text())
    labels = ["none", "best", "farma w=0.5", "farma w=2", "both w=0.5", "both w=2"]
    assert list(content["methods"]) == labels
    assert content["baseline"] == "best"
    assert content["sweeps"]["farma"] == labels[2:4]
    assert content["methods"]["best"]["draws"] > 1
    settings = json.loads((out / "run.json").read_text())
    assert settings["budget"] == {"unit": "tokens", "per_prompt": 60}
    assert settings["methods"]["farma w=2"]["weight"] == 2
    assert settings["fingerprints"].keys() == {str(world / k) for k in ("scalar", "vocabulary")}
    for name in ("surprise", "seconds", "calls", "tokens"):
        assert (out / f"frontier-{name}.svg").read_text().startswith("<svg")
    assert "gain over baseline" in result.stdout
    assert "KL bound" in result.stdout

    # Another baseline and no weight may be asked for on resume, another budget may not.
    again = usual(world, out, *options[:-1], "none", "--resume")
    assert again.exit_code == 0, again.output
    assert json.loads((out / "summary.json").read_text())["baseline"] == "none"
    refused(usual(world, out, "--budget", "calls", *options[2:], "--resume"), "settings of budget")
    refused(usual(world, out, *options), "--resume", "--overwrite")


def test_names_instead_of_a_file(world, tmp_path):
    result = usual(
        world, tmp_path / "out", "--limit", "2",
        methods=f"none,farma={world / 'vocabulary'}",
    )
    assert result.exit_code == 0, result.output
    assert len((tmp_path / "out" / "farma.jsonl").read_text().splitlines()) == 2


def test_a_judge_behind_an_address(world, tmp_path, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("REFEREE_KEY", "sk-very-secret")
    out = tmp_path / "out"

    def reply(question, _):
        return says("Yes.") if "response_a" not in question else says("Verdict: A")

    with Server(reply) as server:
        options = ("--judge-url", server.url, "--judge-model", "referee", "--judge-key-env",
                   "REFEREE_KEY")
        result = usual(world, out, *options)
        assert result.exit_code == 0, result.output
        asked = sum(server.questions.values())
        # Four prompts and three methods, but for equal responses; and the check.
        assert 1 < asked <= 13
        assert usual(world, out, *options, "--resume").exit_code == 0
        assert sum(server.questions.values()) == asked + 1
    assert server.keys == {"Bearer sk-very-secret"}
    assert "win rate" in result.stdout
    methods = json.loads((out / "summary.json").read_text())["methods"]
    assert methods["farma"]["win_rate"] == pytest.approx(0.5, abs=1 / 8)  # odd: one pair more
    assert methods["both"]["rm_calls_per_token"] == 2 * 4  # two models, four candidates
    for place in out.rglob("*"):
        assert place.is_dir() or "sk-very-secret" not in place.read_text()
    assert "sk-very-secret" not in result.output
    with Server(lambda *_: says("Hm.")) as server:
        result = usual(world, out, "--judge-url", server.url, "--judge-model", "other", "--resume")
    assert re.search(r"farma: the judge gave no verdict on \d pairs", result.stderr)
    refused(usual(world, tmp_path / "new", *options), options[1], "check the address")
    assert not (tmp_path / "new").exists()


def test_a_setting_of_another_strategy_is_refused_before_models_load(world, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr("rewardsteer.models.kinds.load_scorer", lambda *_, **__: loaded.append(1))
    methods = tmp_path / "m.yaml"
    methods.write_text(f"a: {{method: best_of_n, beam: 2, reward_model: {world / 'scalar'}}}")
    out = tmp_path / "out"
    refused(usual(world, out, methods=str(methods)), "'beam' of 'a' is not used by", "use beam")
    assert not loaded
    assert not out.exists()


def test_refused_before_anything_is_made(world, tmp_path, monkeypatch):
    out = tmp_path / "out"
    refused(usual(world, out, "--budget", "tokens"), "--budget-per-prompt")
    refused(usual(world, out, "--budget", "eggs", "--budget-per-prompt", "3"), "tokens, seconds")
    refused(usual(world, out, "--judge-model", "referee"), "--judge-url")
    refused(usual(world, out, "--baseline", "cards"), "'cards'", "none, best, farma, both")
    refused(usual(world, out, methods="none,farma"), "farma=FOLDER")
    refused(usual(world, out, methods=f"farma={world / 'scalar'}"), "vocabulary head")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    refused(usual(world, out, "--coherence", "minilm"), "rewardsteer[coherence]")
    monkeypatch.setitem(sys.modules, "openai", None)
    refused(
        usual(world, out, "--judge-url", "http://127.0.0.1:1/v1", "--judge-model", "referee"),
        "rewardsteer[judge]",
    )
    assert not out.exists()


def test_second_models_of_methods(world, tmp_path, monkeypatch):
    small = save_tiny(tmp_path / "small", "gpt2", seed=2)
    shape = "max_new_tokens: 4, batch_size: 2"
    methods, drafted = tmp_path / "methods.yaml", f"draft_model: {small}, step_tokens: 2"
    loaded = []

    def note(source, **options):
        loaded.append(str(source))
        return known(source, **options)

    from rewardsteer.decoding.engines.transformers import engine

    known = engine.load_policy
    monkeypatch.setattr(engine, "load_policy", note)
    methods.write_text(f"""
        none: {{method: none, {shape}}}
        rsd: {{method: rsd, {shape}, {drafted}, accept_reward: 0, reward_model: {world / "scalar"}}}
        gsi: {{method: gsi, {shape}, {drafted}, n: 2, reward_model: {world / "scalar"}}}
        kl: {{method: args, {shape}, top_k: 4, gate: kl, gate_threshold: 0.001,
              reward_model: {world / "scalar"}, gate_model: {world / "vocabulary"}}}
    """)

    def asked(out, *more):
        return run(
            "--model", world / "base", "--prompts", world / "prompts.jsonl", "--methods", methods,
            "--judge", world / "scalar", "--out", out, "--limit", "2", *more,
        )

    out = tmp_path / "out"
    result = asked(out)
    assert result.exit_code == 0, result.output
    assert sorted(loaded) == sorted([str(small), str(world / "base")])
    record = json.loads((out / "run.json").read_text())
    assert record["methods"]["gsi"]["draft_model"] == str(small)
    assert record["methods"]["kl"]["gate_model"] == str(world / "vocabulary")
    assert str(world / "vocabulary") in record["fingerprints"]
    costs = [json.loads(one)["generation"]["cost"] for one in (out / "gsi.jsonl").open()]
    assert all(0 < one["draft_tokens"] < one["lm_tokens"] for one in costs)

    # Goes on with the same models, and one begun before there were such settings.
    for row in record["methods"].values():
        for name in ("draft_model", "gate_model"):
            if row[name] is None:
                del row[name]
    (out / "run.json").write_text(json.dumps(record))
    assert asked(out, "--resume").exit_code == 0
    methods.write_text(methods.read_text().replace(str(small), str(world / "base")))
    refused(asked(out, "--resume"), "other settings of gsi, rsd")


@pytest.mark.parametrize(("row", "words"), [
    ("{method: rsd, reward_model: R}", "needs a second policy that drafts (draft_model)"),
    ("{method: best_of_n, reward_model: R, draft_model: B}", "has no use for a second policy"),
    ("{method: rsd, reward_model: R, draft_model: S}", "must have one vocabulary"),
    ("{method: args, reward_model: R, gate_model: V}", "'gate_model' of 'a' is not used"),
    ("{method: args, reward_model: R, gate: kl, gate_threshold: 1, gate_model: R}",
     "vocabulary"),
])
def test_second_models_that_do_not_fit_are_told_before_anything_loads(
    world, tmp_path, monkeypatch, row, words
):
    def fail(*_, **__):
        pytest.fail("it was loaded")

    monkeypatch.setattr("rewardsteer.models.kinds.load_scorer", fail)
    strange = save_tiny(tmp_path / "strange")
    character_tokenizer(CHARACTERS[::-1]).save_pretrained(strange)
    places = {"R": world / "scalar", "V": world / "vocabulary", "B": world / "base", "S": strange}
    methods = tmp_path / "methods.yaml"
    methods.write_text("a: " + re.sub(r"\b[RVBS]\b", lambda found: str(places[found[0]]), row))
    refused(
        run("--model", world / "base", "--prompts", world / "prompts.jsonl", "--methods", methods,
            "--judge", world / "scalar", "--out", tmp_path / "out"), words,
    )
