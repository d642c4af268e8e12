"""Decoding settings as command-line options, declared once for all commands."""

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from rewardsteer.cli.grouped import grouped

GUIDANCE, SAMPLING, RUNNING = "Guidance", "Sampling", "Running"
BEAM = "Steps of beam, dvts, particle, rsd and gsi"

# Name of a setting → its type, its heading, the default shown in the help ("": the help text itself
# gives it), and the help text.
SETTINGS: dict[str, tuple[Any, str, str, str]] = {
    "weight": (float, GUIDANCE, "1", "Weight of rewards or similarity; 0: the policy alone."),
    "weight_schedule": (
        str, GUIDANCE, "constant",
        "constant, or linear or cosine: from --weight to --weight-end.",
    ),
    "weight_end": (float, GUIDANCE, "", "Weight at the last token of --max-new-tokens."),
    "target_kl": (
        float, GUIDANCE, "",
        "At every token, use the weight with this KL divergence from the policy, in nats.",
    ),
    "max_kl": (float, GUIDANCE, "", "Lower the weight where the KL divergence would be larger."),
    "policy_power": (
        float, GUIDANCE, "1", "Exponent of the policy's probabilities.",
    ),
    "draft": (
        str, RUNNING, "none",
        "Propose tokens ahead and verify them together, for farma, genarm, q_sharp and none: ngram "
        "(tokens that followed before) or policy (saves passes of the reward model). Answers do "
        "not change.",
    ),
    "draft_tokens": (int, RUNNING, "4", "Most tokens per draft."),
    "gate": (
        str, GUIDANCE, "always",
        "Tokens that are guided: always (all); entropy or top1 (the policy is uncertain); kl "
        "(guidance changes much); first; random.",
    ),
    "gate_threshold": (
        float, GUIDANCE, "", "Lowest value of the gate's measure at which a token is guided.",
    ),
    "gate_share": (float, GUIDANCE, "", "Instead of a threshold: guide this share of the tokens."),
    "top_k": (
        int, SAMPLING, "",
        "Number of most probable tokens to draw from, 0 for all; for args, pargs and cd the "
        "number of candidates. Default: the policy's own setting, else all; 10 candidates.",
    ),
    "top_p": (
        float, SAMPLING, "",
        "Draw from the most probable tokens whose probabilities sum to this. Default: the "
        "policy's own, else 1 (all).",
    ),
    "min_p": (
        float, SAMPLING, "",
        "Draw only tokens with at least this share of the highest probability. Default: the "
        "policy's own, else 0.",
    ),
    "repetition_penalty": (
        float, SAMPLING, "",
        "Divides positive and multiplies negative scores of tokens in prompt or response. "
        "Default: the policy's own, else 1.",
    ),
    "stop": (list[str], SAMPLING, "", "A string that ends a response; repeatable."),
    "temperature": (
        float, SAMPLING, "",
        "Divides the scores before drawing; 0: greedy. Default: the policy's own, else 1.",
    ),
    "n": (
        int, SAMPLING, "8",
        "Number of responses that a method draws per prompt; the maximum for methods that stop "
        "early.",
    ),
    "beam": (int, BEAM, "4", "Hypotheses that beam keeps; trees of dvts."),
    "branches": (int, BEAM, "4", "Steps that beam and dvts draw from each hypothesis."),
    "step_separator": (str, BEAM, "a blank line", "Text that ends a step; '' never ends one."),
    "step_tokens": (int, BEAM, "2048", "Most tokens per step."),
    "max_steps": (int, BEAM, "40", "Most steps per response."),
    "max_new_tokens": (int, SAMPLING, "64", "Most tokens per response, end-of-text included."),
    "batch_size": (int, RUNNING, "8", "Sequences decoded in one batch."),
    "seed": (int, SAMPLING, "0", "Seed of the draws; every prompt has its own generator."),
}


def check_used(method: str, options: Iterable[str], settings: Iterable[str] = ()) -> None:
    """Refuse settings that have no effect on the method.

    Args:
        method: name of the decoding method.
        options: names of settings given as options.
        settings: names of settings given as ``--set name=value``.

    Raises:
        ConfigError: the method does not use one of the settings.
    """
    from rewardsteer.decoding.methods import unused
    from rewardsteer.errors import ConfigError

    written = {name: f"--{name.replace('_', '-')}" for name in options} | {
        name: f"--set {name}" for name in settings
    }
    wrong = unused(method, written)
    if wrong is not None:
        raise ConfigError(
            f"{written[wrong[0]]} is not used by --method {method}; leave it out, or use "
            f"{wrong[1]}."
        )


def decoding_options(*names: str, panel: str = "", **defaults: str) -> Callable[[Any], Any]:
    """Decorator that adds options for settings of `rewardsteer.decoding.config.DecodingConfig`.

    The options replace the command's parameter ``settings``, which gets a dictionary of the given
    ones. The configuration and the policy decide the rest.

    Args:
        names: of the settings, in the order of the help.
        panel: heading of all these options; "": each has its own heading.
        defaults: shown in the help instead of the configuration's.
    """

    def parameter(name: str) -> inspect.Parameter:
        kind, heading, default, text = SETTINGS[name]
        if name in defaults:
            # The help text already names the configuration's default.
            text = text.partition(" Default: ")[0]
        if default := defaults.get(name, default):
            text += f"  [default: {default}]"
        option = typer.Option(
            f"--{name.replace('_', '-')}", help=text, rich_help_panel=panel or heading
        )
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None,
            annotation=Annotated[kind | None, option],
        )

    return grouped(
        "settings", [parameter(name) for name in names],
        lambda given: {name: value for name, value in given.items() if value is not None},
    )
