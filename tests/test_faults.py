"""What is wrong with settings and rows, in our own words and never in pydantic's."""

import importlib
import re
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

import rewardsteer
from rewardsteer.configuration import Config, load_config
from rewardsteer.errors import ConfigError
from rewardsteer.faults import checked, faults, show
from rewardsteer.records import Generation

SOURCE = Path(rewardsteer.__file__).parent
# What pydantic says where nobody translates.
OWN_WORDS = re.compile(
    r"Input should|unable to parse|validation error|Extra inputs|Field required|Value error|"
    r"should have|pydantic|str\]|function-"
)


class Leaf(Config):
    kind: Literal["red", "green"] = "red"
    rate: float = Field(1.0, gt=0, le=2)


class Tree(Config):
    count: int = Field(3, ge=1)
    exact: bool = False
    name: str = "a"
    leaf: Leaf = Leaf()
    leaves: list[Leaf] = Field(default_factory=list, max_length=2)
    modules: str | list[str] = "all"
    length: Literal["all"] | int = "all"
    numbers: dict[str, float] = Field(default_factory=dict)
    required: int


def told(*overrides, file=None, **values):
    with pytest.raises(ConfigError) as caught:
        load_config(Tree, {"required": 1} | values, list(overrides), file=file)
    assert not OWN_WORDS.search(str(caught.value))
    return str(caught.value)


@pytest.mark.parametrize(("override", "message"), [
    # Another type.
    ("count=many", "The setting 'count' is wrong: expected a whole number, got 'many'."),
    ("count=1.5", "The setting 'count' is wrong: expected a whole number, got 1.5."),
    ("count=", "The setting 'count' is wrong: expected a whole number, got null."),
    ("exact=perhaps", "'exact' is wrong: expected true or false, got 'perhaps'."),
    ("name=3", "'name' is wrong: expected text, got 3."),
    ("leaf.rate=fast", "'leaf.rate' is wrong: expected a number, got 'fast'."),
    ("numbers.a=x", "'numbers.a' is wrong: expected a number, got 'x'."),
    # One thing instead of several, several instead of one.
    ("leaves=red", "'leaves' is wrong: expected a list, got 'red'. Write a list: leaves=[…]."),
    ("leaf=red", "expected a mapping, got 'red'. Its parts are leaf.kind, leaf.rate."),
    ("name=[a, b]", "'name' is wrong: expected text, got ['a', 'b']."),
    # Out of bounds.
    ("count=0", "'count' is wrong: expected at least 1, got 0."),
    ("leaf.rate=0", "'leaf.rate' is wrong: expected more than 0, got 0."),
    ("leaf.rate=3", "'leaf.rate' is wrong: expected at most 2, got 3."),
    ("leaves=[{}, {}, {}]", "'leaves' is wrong: expected at most 2 of them, got 3."),
    # Choices and alternatives.
    ("leaf.kind=gren", "expected 'red' or 'green', got 'gren'. Did you mean 'green'?"),
    ("length=some", "'length' is wrong: expected 'all' or a whole number, got 'some'."),
    ("modules={a: b}", "'modules' is wrong: expected text or a list, got {'a': 'b'}."),
    ("modules=[3]", "'modules.0' is wrong: expected text, got 3."),
    # Names.
    ("leaf.knd=red", "Unknown setting 'leaf.knd'. Did you mean 'kind'? Known here: kind, rate."),
    ("rate=1", "Unknown setting 'rate'. Did you mean 'leaf.rate'? Known here: "),
    ("rates=1", "Unknown setting 'rates'. Did you mean 'leaf.rate'? Known here: "),
])
def test_settings(override, message):
    assert message in told(override)


def test_the_file_is_named_unless_the_setting_was_given_over_it(tmp_path):
    place = tmp_path / "x.yaml"
    assert f"'leaf.rate' in {place} is wrong" in told(leaf={"rate": "x"}, file=place)
    assert "'leaf.rate' is wrong" in told("leaf.rate=x", file=place)
    assert "'leaf.rate' is wrong" in told("leaf={rate: x}", file=place)
    assert f"Unknown setting 'cuont' in {place}. Did you mean 'count'?" in told(cuont=1, file=place)
    place.write_text("leaves: [{rate: 1}, {rate: x}]\n")
    with pytest.raises(ConfigError, match=re.escape(
        f"The setting 'leaves.1.rate' in {place} is wrong: expected a number, got 'x'. The setting "
        f"'required' is required and was not given; write required=VALUE or add it to {place}."
    )):
        load_config(Tree, place)


def test_a_long_value_is_told_in_short():
    assert show("a" * 100) == f"{'a' * 30!r} and 70 characters more"
    assert show(list(range(100))) == "a list of 100"
    assert show({"a": "b" * 100, "c": 1}) == "a mapping of a, c"


def test_records_and_single_values():
    with pytest.raises(ValueError, match=r"^cost\.new_tokens: expected a whole number, got 'x'$"):
        checked(Generation, {
            "id": "1", "prompt": "a", "completion": "b", "method": "none",
            "cost": {"new_tokens": "x"},
        })
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int | list[str]).validate_python("x")
    assert [one.words for one in faults(caught.value.errors(), "x")] == [
        "expected a whole number or a list, got 'x'"
    ]


WRONG = ["x", -1, 1.5, ["x"], {"a": "b"}, None]


def all_settings():
    """Every class of settings of the package."""
    for path in SOURCE.rglob("*config.py"):
        importlib.import_module(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts))
    found, waiting = [], [Config]
    while waiting:
        own = waiting.pop().__subclasses__()
        waiting += own
        found += [one for one in own if one.__module__.startswith("rewardsteer.")]
    return found


def test_no_setting_answers_in_pydantics_words():
    """Every setting of every class, with values of all types."""
    kinds, refused = all_settings(), 0
    assert len(kinds) > 20
    for kind in kinds:
        # transformers checks its own arguments (tests/training/test_trainer_settings.py).
        for name in kind.model_fields.keys() - {"trainer"}:
            for wrong in WRONG:
                try:
                    load_config(kind, {name: wrong})
                except ConfigError as error:
                    refused += 1
                    message = str(error)
                    assert not OWN_WORDS.search(message), message
                    assert "\n" not in message, message
                    assert f"'{name}" in message or "required" in message or (
                        "settings do not fit" in message
                    ), message
    assert refused > 500


def test_one_place_translates():
    """Nothing else reads pydantic's words or shows an error of pydantic's as it is."""
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        if path.name == "faults.py":
            continue
        assert not re.search(r"\[.msg.\]", text), path
        for block in re.findall(r"except ValidationError as error:\n(?:(?: {8,}.*)?\n)+", text):
            assert "{error}" not in block, path
