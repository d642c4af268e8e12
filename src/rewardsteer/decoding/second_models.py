"""The second models of a method: a smaller policy that drafts steps (``rsd``, ``gsi``), and a
reward model for the gate ``kl``. All entry points (Python, command line, server) check them here
before any model loads."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.registry import ABILITIES, MEANINGS, check_abilities
from rewardsteer.decoding.fitting import check_gate, drafted_methods
from rewardsteer.decoding.folder_scorer import FolderScorer
from rewardsteer.decoding.methods import METHODS
from rewardsteer.errors import ConfigError, MismatchError
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.compatibility import first_difference, shown_name

# Engines with gates.
_WITH_GATES = ("transformers",)
_KL = DecodingConfig(method="args", gate="kl", gate_threshold=0.0)
# How a second policy is given, in Python and on the command line.
_OPTIONS = "(draft_model, --draft-model)"


def check_draft_model(
    config: DecodingConfig | None, given: Any, engine: str, tokenizer: Any, *,
    option: str = _OPTIONS,
) -> None:
    """Check the policy that drafts, before any policy loads.

    Args:
        config: settings of the run; None: for a server, whose requests name the method.
        given: its folder, hub name or name on a server, or a loaded policy with the policy's
            tokens; None: there is none.
        engine: name of the engine that runs both.
        tokenizer: the policy's; None: not known.
        option: how it is given here, for messages.

    Raises:
        ConfigError: a method lacks it, or has no use for one; the engine cannot do enough.
        MismatchError: it has other tokens than the policy.
    """
    if config is not None:
        kind = METHODS.get(config.method)
        check_drafted(config.method, kind, given is not None, option=option)
    if given is None:
        return
    if engine != "transformers" and not isinstance(given, str | Path):
        raise ConfigError(
            "A loaded policy that drafts is for the engine 'transformers'; give the name of a "
            "second policy."
        )
    if config is not None and engine in ABILITIES:
        runs = SimpleNamespace(name=engine, abilities=ABILITIES[engine])
        check_abilities(runs, SimpleNamespace(name=config.method, abilities=kind.abilities))
        _check_drafting(config.method, kind, runs)
    if tokenizer is not None and isinstance(given, str | Path) and engine != "openai":
        _check_tokens(first_difference(tokenizer, load_tokenizer(str(given))) is None)


def check_drafted(name: str, method: Any, given: bool, *, option: str = _OPTIONS) -> None:
    """Raise `ConfigError` on a method (or its class) without the second policy that it wants, or
    with one that it does not."""
    if method.wants_drafter and not given:
        raise ConfigError(
            f"The method {name!r} needs a second policy that drafts {option}; give a smaller one "
            "with the same tokens."
        )
    if given and not method.wants_drafter:
        raise ConfigError(
            f"The method {name!r} has no use for a second policy that drafts {option}; leave it "
            f"out, or use {drafted_methods()}."
        )


def check_drafter(method: Any, engine: Any, *, option: str = _OPTIONS) -> None:
    """Refuse a method without the second policy that it wants, or one with other tokens.

    Args:
        method: with its ``drafter``, an engine or None.
        option: how a second policy is given here, for messages.

    Raises:
        ConfigError: there is none, or one that nobody wants, or its engine cannot do enough.
        MismatchError: the tokenizers differ.
    """
    drafter = method.drafter
    check_drafted(method.name, method, drafter is not None, option=option)
    if drafter is None:
        return
    _check_drafting(method.name, method, drafter)
    check_same_tokens(engine, drafter)


def check_same_tokens(engine: Any, drafter: Any) -> None:
    """Raise `MismatchError` if two engines' policies have different tokens; models of a server are
    compared by the number of tokens of a fixed text."""
    if engine.by_name:
        _check_tokens(engine.length_of_text == drafter.length_of_text)
    elif drafter.tokenizer is not engine.tokenizer:
        _check_tokens(first_difference(engine.tokenizer, drafter.tokenizer) is None)


def check_gate_model(
    config: DecodingConfig | None, folder: str | Path | None, engine: str, tokenizer: Any
) -> None:
    """Check the reward model of a gate by its card, before any weights load.

    Args:
        config: the settings; None: of a server, whose requests have them.
        folder: of the reward model; None: there is none.
        tokenizer: the policy's.

    Raises:
        ConfigError: the settings have no use for it, or the engine has no gates.
        MismatchError: it has no vocabulary head, or other tokens than the policy.
    """
    if folder is None:
        return
    if engine not in _WITH_GATES:
        raise ConfigError(
            f"A reward model for the gate (gate_model, --gate-model) is for the engine "
            f"{' or '.join(_WITH_GATES)}, got {engine}; leave it out."
        )
    scout = FolderScorer(Path(folder))
    check_gate(config or _KL, scout)
    _check_scout(scout, tokenizer)


def check_scout(method: Any, tokenizer: Any) -> None:
    """Raise `MismatchError` where a method's gate asks a reward model with other tokens than the
    policy's."""
    if getattr(method, "scout", None) is not None:
        _check_scout(method.scout.scorer, tokenizer)


def _check_scout(scout: Any, tokenizer: Any) -> None:
    found = first_difference(tokenizer, scout.tokenizer)
    if found is not None:
        raise MismatchError(
            "The reward model for the gate (gate_model, --gate-model) is asked in the policy's "
            f"tokens, but id {found[0]} is {found[1]} to the policy and {found[2]} to "
            f"{shown_name(scout)}; use one with the policy's tokenizer, or leave it out."
        )


def _check_drafting(name: str, method: Any, drafter: Any) -> None:
    """Raise `ConfigError` where an engine cannot do enough for the second policy of a method."""
    missing = [MEANINGS[one] for one in MEANINGS
               if one in method.drafter_abilities - set(drafter.abilities)]
    if missing:
        raise ConfigError(
            f"The second policy of the method {name!r} needs an engine that "
            f"{' and '.join(missing)}, which {drafter.name} does not do; use the engine "
            "transformers for it."
        )


def _check_tokens(same: bool) -> None:
    """Raise `MismatchError` where a second policy has other tokens than the policy."""
    if not same:
        raise MismatchError(
            "The policy and the second one that drafts (draft_model, --draft-model) must have one "
            "vocabulary, for each continues the tokens of the other, and theirs differ; use a "
            "smaller model of the policy's family."
        )
