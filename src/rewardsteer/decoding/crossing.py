"""Methods between a policy and a reward model with different tokenizers.

Strategies judge texts, so they work with any two. A guide adds rewards to the policy's next-token
scores. It works where both vocabularies hold the same tokens under other ids (`token_map`), and
where it scores few candidates, whose texts are tokenized again
(`rewardsteer.decoding.guides.texts`).
"""

import copy
from types import SimpleNamespace
from typing import Any

from rewardsteer.data.template import Template, writer_of
from rewardsteer.decoding.fitting import check_scorer
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.texts import TextCandidates
from rewardsteer.decoding.mapped_scorer import MappedScorer, token_map
from rewardsteer.decoding.methods import METHODS, is_guide
from rewardsteer.errors import MismatchError
from rewardsteer.models.compatibility import check_vocabularies, members, reads_tokens, shown_name


def shares_tokens(tokenizer: Any, scorer: Any) -> bool:
    """Whether a reward model reads the policy's tokens; False for one that takes texts alone."""
    if isinstance(scorer, MappedScorer):
        return True
    if isinstance(scorer, TextCandidates) or tokenizer is None:
        return False
    if not all(map(reads_tokens, members(scorer))):
        return False
    try:
        check_vocabularies(tokenizer, scorer)
    except MismatchError:
        return False
    return True


def writer_between(
    template: Template | None, tokenizer: Any, scorer: Any
) -> tuple[Template, Any]:
    """Template and renderer of the policy's prompts, see `rewardsteer.data.template.writer_of`. A
    reward model that takes texts or other tokens has no influence: it writes its own texts."""
    shared = scorer is not None and shares_tokens(tokenizer, scorer)
    return writer_of(template, tokenizer, scorer if shared else None)


def adapted(method: Any, engine: Any) -> Any:
    """The method with its reward model adapted to the engine's policy. Strategies, and methods with
    a shared tokenizer, are returned unchanged.

    Raises:
        MismatchError: a guide that cannot work with two tokenizers.
    """
    scorer, tokenizer = method.scorer, engine.tokenizer
    if not isinstance(method, LogitsGuide) or scorer is None or shares_tokens(tokenizer, scorer):
        return method
    crossed = copy.copy(method)
    crossed.scorer = across(method.name, method.asks, scorer, engine)
    return crossed


def check_crossing(method: str, scorer: Any, tokenizer: Any, engine: Any) -> None:
    """Refuse, before the policy loads, a guide that cannot work between two tokenizers.

    Raises:
        MismatchError: says what would work.
    """
    if scorer is None or not is_guide(method) or METHODS.get(method).asks == "nothing":
        return
    check_scorer(method, METHODS.get(method), scorer)
    if not shares_tokens(tokenizer, scorer):
        across(method, METHODS.get(method).asks, scorer, SimpleNamespace(
            name=engine.name, holds_guides=engine.holds_guides, tokenizer=tokenizer, stop_ids=()
        ))


def across(name: str, asks: str, scorer: Any, engine: Any) -> Any:
    """The reward model, wrapped so that a guide can ask it about tokens of another tokenizer.

    Raises:
        MismatchError: it cannot be asked.
    """
    tokenizer, several = engine.tokenizer, members(scorer)
    if engine.holds_guides:
        raise MismatchError(
            f"With the engine {engine.name!r}, {name!r} needs a reward model with the "
            f"policy's tokenizer, and {shown_name(several[0])} has another; use the engine "
            "'transformers', or best_of_n or beam."
        )
    if len(several) > 1:
        raise MismatchError(
            f"The method {name!r} adds up several reward models by token, so all need the "
            "policy's tokenizer; leave out those with another one, or use best_of_n with one of "
            "them."
        )
    ids = token_map(tokenizer, scorer.tokenizer)
    if ids is not None:
        return MappedScorer(scorer, ids)
    if asks == "candidates":
        return TextCandidates(scorer, tokenizer, engine.stop_ids)
    raise MismatchError(
        f"The method {name!r} adds a reward to every token of the policy, but the "
        f"vocabulary of {shown_name(scorer)} holds other tokens than the policy's; use best_of_n "
        "or beam, which judge texts, or args with a scalar reward model."
    )
