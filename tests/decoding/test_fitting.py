import subprocess
import sys
import types
from types import SimpleNamespace

import pytest

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.default_method import default_method, foreign_method
from rewardsteer.decoding.engines.vllm_checks import check_supported
from rewardsteer.decoding.fitting import (
    adding_methods,
    check_scorer,
    goal_methods,
    listed,
    methods_for,
)
from rewardsteer.decoding.generate import build_method
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.methods import METHODS, takes_no_reward_model
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.models.checkpoint import CheckpointCard


def scorer_of(kind, objective="", name="reward"):
    return SimpleNamespace(head_kind=kind, objective=objective, name=name)


def card_of(kind, objective, reading=""):
    return CheckpointCard(head={"kind": kind}, objective=objective, reading=reading)


class Mine(LogitsGuide):
    """A method of one's own."""

    asks = "candidates"
    needs = "scalar"
    trained_on = ("my_objective",)
    default_for = "my_objective"


@pytest.fixture
def mine(monkeypatch):
    module = types.ModuleType("a_method_of_ones_own")
    module.Mine = Mine
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(METHODS._entries, "mine", f"{module.__name__}:Mine")


def test_lists():
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b or c"
    assert adding_methods() == "args, cd, farma, genarm or pargs"
    assert goal_methods() == "beam, dvts, goal_filter or particle"


# Those that judge whole responses alone, and take any reward model.
CHOOSING = "adaptive_best_of_n best_of_n reward_vote soft_best_of_n beam dvts particle"


@pytest.mark.parametrize(("kind", "objective", "expected"), [
    ("scalar", "", "args cards cd pargs speculative_rejection"),
    ("scalar", "bradley_terry", "args cards speculative_rejection"),
    ("scalar", "partial", "args cards cd pargs speculative_rejection"),
    ("vocabulary", "bradley_terry", "farma"),
    ("vocabulary", "autoregressive", "farma genarm"),
])
def test_methods_for_a_reward_model(kind, objective, expected):
    assert methods_for(scorer_of(kind, objective)) == sorted(f"{CHOOSING} {expected}".split())


@pytest.mark.parametrize(("kind", "objective", "reading", "expected"), [
    ("scalar", "bradley_terry", "", "args"),
    ("scalar", "bradley_terry+partial", "", "pargs"),
    ("scalar", "partial+goal_contrastive", "", "pargs"),
    ("scalar", "", "", "args"),
    ("vocabulary", "partial+max_constraint", "", "farma"),
    ("vocabulary", "autoregressive", "", "genarm"),
    ("vocabulary", "autoregressive+partial", "value", "farma"),
    ("vocabulary", "partial", "log_probability", "genarm"),
])
def test_natural_method(kind, objective, reading, expected):
    assert default_method(card_of(kind, objective, reading)).name == expected


def test_a_choice_says_why():
    choice = default_method(card_of("scalar", "bradley_terry"))
    assert choice.told("choose another with --method") == (
        "method: args (the default for a scalar head trained with bradley_terry; choose another "
        "with --method)"
    )
    assert default_method(card_of("vocabulary", "")).why == (
        "the default for a vocabulary head of unknown training"
    )
    instead = default_method(card_of("vocabulary", "partial"), {"extends"})
    assert (instead.name, instead.why) == (
        "best_of_n",
        "this engine cannot run farma, the default for a vocabulary head trained with partial",
    )
    assert foreign_method("armorm", compares=False) == (
        "best_of_n", "the default for reward models of the kind armorm"
    )
    assert foreign_method("pairrm", compares=True).name == "tournament"


def test_every_class_declares_what_it_needs():
    for name in METHODS.names():
        kind = METHODS.get(name)
        assert kind.needs in ("none", "any", "scalar", "vocabulary"), name
        assert isinstance(kind.trained_on, tuple), name
        assert kind.default_for is None or isinstance(kind.default_for, str), name


def test_which_methods_take_no_reward_model():
    for name in METHODS.names():
        assert takes_no_reward_model(name) == (METHODS.get(name).needs == "none")
    assert not takes_no_reward_model("nothing")


def test_messages_name_a_new_method(mine):
    with pytest.raises(MismatchError, match=r"use it with .*\bcd, dvts, mine, pargs\b.* or train"):
        build_method(DecodingConfig(method="farma"), scorer_of("scalar"))
    with pytest.raises(MismatchError, match="trained with the objective 'my_objective', but"):
        build_method(DecodingConfig(method="mine"), scorer_of("scalar", "bradley_terry"))
    several = SimpleNamespace(members=[scorer_of("scalar")] * 2)
    with pytest.raises(MismatchError, match=r"all but one, or use .*, genarm, mine or pargs"):
        build_method(DecodingConfig(method="best_of_n"), several)
    assert "mine" not in methods_for(scorer_of("scalar", "bradley_terry"))
    assert default_method(card_of("scalar", "my_objective")).name == "mine"


@pytest.mark.parametrize("asks", ["candidates", "next_tokens"])
def test_vllm_runs_a_new_method_only_by_a_rule_that_it_has(mine, monkeypatch, asks):
    monkeypatch.setattr(Mine, "asks", asks)
    with pytest.raises(ConfigError, match="does not know the method 'mine'"):
        check_supported(SimpleNamespace(scorer=None), DecodingConfig(method="mine", top_k=5))


_HELP = """
import sys
from rewardsteer.decoding.methods import METHODS
METHODS._entries["a_new_one"] = "no.such.module:Kind"
from rewardsteer.cli.main import app
app([sys.argv[1], "--help"], standalone_mode=False)
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("command", ["generate", "serve", "inspect"])
def test_help_names_a_new_method(command):
    done = subprocess.run(
        [sys.executable, "-c", _HELP, command], capture_output=True, text=True, check=True
    )
    assert "a_new_one" in done.stdout


def test_messages_that_reach_clients_name_no_option_of_the_command_line():
    with pytest.raises(MismatchError) as error:
        check_scorer("args", METHODS.get("args"), None)
    assert "needs a reward model" in str(error.value)
    assert "--" not in str(error.value)
