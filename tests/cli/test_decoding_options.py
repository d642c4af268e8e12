"""Settings of decoding as options: declared once."""

import inspect

import pytest

from rewardsteer.cli.decoding_options import SETTINGS, decoding_options
from rewardsteer.decoding.config import DecodingConfig


@pytest.mark.parametrize("name", SETTINGS)
def test_defaults_in_the_help_are_those_of_the_configuration(name):
    kind, _, shown, text = SETTINGS[name]
    default = DecodingConfig.model_fields[name].default
    if not shown:
        # Without a default, or the help's own text names it.
        assert default is None or "efault" in text or name == "stop"
    else:
        assert {"a blank line": "\n\n"}.get(shown, shown) == (
            f"{default:g}" if kind is float else str(default)
        )


def test_a_command_is_given_what_was_given():
    seen = {}

    @decoding_options("top_k", "step_separator")
    def command(*, first: int = 1, settings: dict, last: str = "") -> None:
        """Help."""
        seen.update(settings, first=first, last=last)

    assert list(inspect.signature(command).parameters) == [
        "first", "top_k", "step_separator", "last"
    ]
    command(first=2, top_k=0, step_separator=None, last="b")
    assert seen == {"top_k": 0, "first": 2, "last": "b"}
