"""Methods of somebody else, one file each outside the package, named ``package.module:Class``."""

import json
import sys
import textwrap

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.errors import ConfigError, MismatchError
from tests.cli.test_generate_command import PROMPTS, read, save_reward_model
from tests.decoding.test_generate import make_policy, make_scorer
from tests.fakes import save_tiny

FILES = {
    # Subtracts what the reward model likes.
    "contrary.py": """
        from rewardsteer.decoding.guides.base import LogitsGuide

        class Contrary(LogitsGuide):
            def transform(self, rewards):
                return -rewards
    """,
    # Of three samples the one that is liked least.
    "humble.py": """
        from asyncio import gather
        from rewardsteer.decoding.engine import Outcome
        from rewardsteer.decoding.strategies.base import Strategy

        class Humble(Strategy):
            samples = 3

            async def respond(self, prompt, engine, scorer):
                written = [engine.start(index) for index in range(self.samples)]
                await gather(*(sample.extend() for sample in written))
                rewards = await scorer.score(written)
                worst = min(range(self.samples), key=rewards.__getitem__)
                return Outcome(written[worst], rewards[worst])
    """,
}
GUIDE, STRATEGY = "elsewhere.contrary:Contrary", "elsewhere.humble:Humble"


@pytest.fixture
def place(tmp_path):
    """A folder with a package of the two files; what was imported from it is forgotten."""
    package = tmp_path / "elsewhere"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, text in FILES.items():
        (package / name).write_text(textwrap.dedent(text))
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0] == "elsewhere"]:
        del sys.modules[name]


@pytest.fixture
def found(place, monkeypatch):
    monkeypatch.syspath_prepend(place)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    base = save_tiny(root / "policy", seed=1)
    save_reward_model(base, root / "vocabulary", "vocabulary")
    save_reward_model(base, root / "scalar", "scalar")
    (root / "prompts.jsonl").write_text(
        "".join(json.dumps({"id": str(i), "prompt": p}) + "\n" for i, p in enumerate(PROMPTS))
    )
    return root


def answers(scorer, **settings):
    policy, tokenizer = make_policy(eos_bias=1.5)
    config = DecodingConfig(max_new_tokens=9, batch_size=4, seed=3, top_k=0, **settings)
    return list(generate(policy, tokenizer, PROMPTS, build_method(config, scorer), config))


@pytest.mark.usefixtures("found")
def test_a_guide(root):
    scorer = make_scorer(root / "policy", "vocabulary")
    ours = answers(scorer, method=GUIDE, weight=1.5)
    farma = answers(scorer, method="farma", weight=-1.5)
    assert [one.token_ids for one in ours] == [one.token_ids for one in farma]
    assert [one.method for one in ours] == [GUIDE] * len(PROMPTS)
    for one, other in zip(ours, farma, strict=True):
        assert one.cost.model_copy(update={"seconds": 0}) == other.cost.model_copy(
            update={"seconds": 0}
        )
    assert [one.token_ids for one in ours] != [
        one.token_ids for one in answers(scorer, method="farma", weight=1.5)
    ]


@pytest.mark.usefixtures("found")
def test_a_strategy(root):
    scorer = make_scorer(root / "policy", "scalar")
    best = answers(scorer, method="best_of_n", n=3)
    for one, other in zip(answers(scorer, method=STRATEGY), best, strict=True):
        assert one.reward < other.reward
        assert (one.cost.rm_calls, one.cost.lm_calls) == (3, other.cost.lm_calls)
        assert one.cost.lm_tokens == other.cost.lm_tokens


@pytest.mark.usefixtures("found")
def test_their_reward_models_are_checked_as_declared(root):
    with pytest.raises(MismatchError, match="needs a reward model, and there is none"):
        build_method(DecodingConfig(method=STRATEGY))
    with pytest.raises(MismatchError, match=f"'{GUIDE}' needs a reward model with a vocabulary"):
        build_method(DecodingConfig(method=GUIDE), make_scorer(root / "policy", "scalar"))


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("name", [
    "elsewhere.contrary:Nothing", "elsewhere.missing:Contrary", "nowhere.at_all:Contrary",
])
def test_a_name_that_leads_nowhere(name):
    with pytest.raises(ConfigError, match=f"'{name}' cannot be imported.*a colon"):
        build_method(DecodingConfig(method=name))


def command(root, output, *more):
    return CliRunner().invoke(app, [str(part) for part in (
        "generate", "--model", root / "policy", "--prompts", root / "prompts.jsonl",
        "--output", output, "--max-new-tokens", 6, "--batch-size", 2, "--seed", 3, *more,
    )])


@pytest.mark.parametrize(("name", "head"), [(GUIDE, "vocabulary"), (STRATEGY, "scalar")])
def test_on_the_command_line_from_the_folder_one_is_in(root, place, name, head, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part])
    output = place / "y.jsonl"
    result = command(root, output, "--method", name, "--reward-model", root / head)
    assert result.exit_code == 0, result.output
    rows = read(output)
    assert [row.id for row in rows] == [str(number) for number in range(len(PROMPTS))]
    assert all(row.method == name and row.error is None for row in rows)
    assert all(row.cost.rm_calls == (3 if head == "scalar" else row.cost.new_tokens)
               for row in rows)
    settings = json.loads((place / "y.jsonl.settings.json").read_text())
    assert settings["method"] == name


def test_the_folder_one_is_in_hides_no_installed_module(place, monkeypatch):
    (place / "torch.py").write_text("raise ImportError('the wrong one')")
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part])
    assert CliRunner().invoke(app, ["recipes"]).exit_code == 0
    assert sys.path[-1] == str(place)
    monkeypatch.delitem(sys.modules, "torch")
    import importlib.util

    assert importlib.util.find_spec("torch").origin != str(place / "torch.py")


def test_a_folder_that_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part])
    gone.rmdir()
    assert CliRunner().invoke(app, ["recipes"]).exit_code == 0


def test_a_wrong_name_on_the_command_line_is_a_sentence(root, place, monkeypatch):
    monkeypatch.chdir(place)
    result = command(root, place / "y.jsonl", "--method", "elsewhere.humble:Proud",
                     "--reward-model", root / "scalar")
    assert result.exit_code == 2, result.output
    assert "'elsewhere.humble:Proud' cannot be imported" in " ".join(result.output.split())
    assert not (place / "y.jsonl").exists()
