"""What is asked of a method by its name, where it is of somebody else: of a class, and of none."""

import sys
import textwrap

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.fitting import goal_methods
from rewardsteer.decoding.generate import build_method
from rewardsteer.decoding.methods import (
    METHODS,
    adds_rewards,
    asks_candidates,
    has_weight,
    is_guide,
    takes_no_reward_model,
    wants_goal,
)
from rewardsteer.errors import ConfigError
from rewardsteer.evaluation.method_settings import read_methods, sweep_weights
from rewardsteer.outputs import read_jsonl
from tests.cli.test_evaluate_generation_command import usual, world  # noqa: F401

FILE = """
    from rewardsteer.decoding.guides.base import LogitsGuide
    from rewardsteer.decoding.strategies.base import Direct, Strategy

    class Guide(LogitsGuide):
        pass

    class Asking(LogitsGuide):
        asks, needs = "candidates", "scalar"

    class Program(Direct):
        pass

    class Goal(Strategy):
        wants_goal = has_weight = True

    class Neither:
        pass

    def function(scorer, config):
        return None
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_methods.py").write_text(textwrap.dedent(FILE))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_methods", None)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("name", "found"), [
    ("Guide", "guide adds weight"), ("Asking", "guide adds weight asks"), ("Program", ""),
    ("Goal", "weight goal"),
])
def test_what_its_class_declares(name, found):
    name = f"own_methods:{name}"
    told = {"guide": is_guide, "adds": adds_rewards, "weight": has_weight, "goal": wants_goal,
            "asks": asks_candidates}
    assert {word for word, ask in told.items() if ask(name)} == set(found.split())
    METHODS.check(name)
    assert name not in METHODS.names()
    assert name not in goal_methods()


@pytest.mark.usefixtures("own")
def test_who_takes_no_reward_model_is_what_classes_declare():
    """The package's own are listed, so that telling it imports nothing."""
    for name in (*METHODS.names(), "own_methods:Program", "own_methods:Guide"):
        assert takes_no_reward_model(name) == (METHODS.get(name).needs == "none"), name
    assert not takes_no_reward_model("nothing")


def test_checking_a_name_imports_nothing(own):
    METHODS.check("own_methods:Guide")
    assert "own_methods" not in sys.modules


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", [
    "own_methods:Neither", "own_methods:function", "collections:OrderedDict", "json:dumps",
])
def test_what_is_no_method_is_a_sentence(name):
    for ask in (is_guide, wants_goal, adds_rewards, has_weight, asks_candidates):
        with pytest.raises(ConfigError, match=f"'{name}' is no decoding method"):
            ask(name)
    with pytest.raises(ConfigError, match="expected a class derived from LogitsGuide"):
        build_method(DecodingConfig(method=name))


@pytest.mark.parametrize("words", [
    ("generate", "--prompt", "a", "--output", "y.jsonl"), ("serve", "--port", "0"),
    ("inspect", "--prompt", "a", "--completion", "b", "--output", "y.jsonl"),
], ids=lambda words: words[0])
def test_commands_say_so_before_models_load(words, world, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rewardsteer.models.kinds.load_scorer",
                        lambda *_, **__: pytest.fail("it was loaded"))
    result = CliRunner().invoke(app, [
        *words, "--model", str(world / "base"), "--reward-model", str(world / "scalar"),
        "--method", "json:dumps",
    ])
    assert result.exit_code == 2, result.output
    assert "'json:dumps' is no decoding method" in " ".join(result.stderr.split())


@pytest.mark.usefixtures("own")
def test_rows_of_a_comparison():
    rows = read_methods("none,own_methods:Program,majority_vote,own_methods:Guide=f")
    assert [row.folders for row in rows.values()] == [[], [], [], ["f"]]
    swept, _ = sweep_weights(rows, "1,2")
    assert list(swept)[3:] == ["own_methods:Guide w=1", "own_methods:Guide w=2"]
    with pytest.raises(ConfigError, match="needs a reward model: write own_methods:Guide=FOLDER"):
        read_methods("own_methods:Guide")


@pytest.mark.usefixtures("own")
def test_a_comparison_with_methods_that_need_no_reward_model(world, tmp_path):  # noqa: F811
    (world / "own.yaml").write_text("""
        none: {method: none, max_new_tokens: 5, top_k: 0}
        own: {method: "own_methods:Program", max_new_tokens: 5, top_k: 0}
        vote: {method: majority_vote, n: 2, max_new_tokens: 5, top_k: 0}
    """)
    result = usual(world, tmp_path / "out", methods="own.yaml")
    assert result.exit_code == 0, result.output
    plain, own, vote = (
        [row["generation"] for _, row in read_jsonl(tmp_path / "out" / f"{name}.jsonl")]
        for name in ("none", "own", "vote")
    )
    assert [row["completion"] for row in own] == [row["completion"] for row in plain]
    assert [len(rows) for rows in (own, vote)] == [4, 4]
    assert all(row["cost"]["rm_calls"] == 0 for row in (*own, *vote))
