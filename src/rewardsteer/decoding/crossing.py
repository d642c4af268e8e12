"""Methods between a policy and a reward model with different tokenizers.

Strategies judge texts, so they work with any two. A guide adds rewards to the policy's next-token
scores. It works where both vocabularies hold the same tokens under other ids (`token_map`), and
where it scores few candidates, whose texts are tokenized again
(`rewardsteer.decoding.guides.texts`).
"""

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rewardsteer.data.template import Template, writer_of
from rewardsteer.decoding.fitting import check_scorer
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.texts import TextCandidates
from rewardsteer.decoding.methods import METHODS, is_guide
from rewardsteer.errors import MismatchError
from rewardsteer.models.compatibility import (
    check_vocabularies,
    members,
    reads_tokens,
    shown_name,
)


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

    Args:
        method: its name; strategies pass.
        scorer: the reward model, or None.
        tokenizer: the policy's.
        engine: the engine's class.

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

    Args:
        name: of the guide, for messages.
        asks: see `LogitsGuide`.
        scorer: the reward model.
        engine: runs the policy.

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


_UNKNOWN = -1
_TASKS = ("eos_token", "bos_token", "pad_token", "unk_token")


def token_map(policy_tokenizer: Any, reward_tokenizer: Any) -> list[int] | None:
    """The reward model's id of each of the policy's tokens, -1 for a special token that it lacks;
    None if the vocabularies hold different tokens."""
    ours, theirs = policy_tokenizer.get_vocab(), reward_tokenizer.get_vocab()
    special = _special(policy_tokenizer) | _special(reward_tokenizer)
    if (ours.keys() - special) != (theirs.keys() - special):
        return None
    roles = {
        getattr(policy_tokenizer, task): getattr(reward_tokenizer, task)
        for task in reversed(_TASKS)
    }
    found = [_UNKNOWN] * (max(ours.values()) + 1)
    for token, index in ours.items():
        same = token if token in theirs else roles.get(token)
        found[index] = theirs.get(same, _UNKNOWN)
    return found


def _special(tokenizer: Any) -> set[str]:
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | set(tokenizer.all_special_tokens)


class MappedScorer:
    """A reward model that is asked in the policy's ids.

    Args:
        scorer: a `rewardsteer.models.scorer.Scorer`.
        ids: from `token_map`.

    Attributes:
        known_tokens: ``[P]`` bool, whether the reward model has each of the policy's tokens.
        vocabulary_size: P.
    """

    def __init__(self, scorer: Any, ids: Sequence[int]) -> None:
        self._scorer = scorer
        found = torch.tensor(list(ids))
        found = found.where(found < scorer.vocabulary_size, _UNKNOWN)
        self.known_tokens, self._ids = found >= 0, found.clamp(min=0)
        self._read = found.where(self.known_tokens, scorer.known.stand_in)
        self.vocabulary_size = len(found)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)

    def next_token(
        self, prefix_ids: Tensor, attention_mask: Tensor, cache: Any = None
    ) -> Tensor:
        """Rewards ``[B, P]`` of all one-token extensions; unknown tokens get their row's minimum.
        """
        rewards = self._scorer.next_token(self._own(prefix_ids), attention_mask, cache)
        # Once, not for every token.
        self._ids = self._ids.to(rewards.device)
        self.known_tokens = known = self.known_tokens.to(rewards.device)
        mapped = rewards[:, self._ids]
        least = mapped.masked_fill(~known, torch.inf).amin(dim=1, keepdim=True)
        return torch.where(known, mapped, least)

    def candidates(
        self, prefix_ids: Tensor, attention_mask: Tensor, candidate_ids: Tensor, cache: Any = None
    ) -> Tensor:
        """Rewards ``[B, K]`` of prefix∘candidate."""
        asked = self._ids[candidate_ids.to(self._ids.device)].to(candidate_ids.device)
        rewards: Tensor = self._scorer.candidates(
            self._own(prefix_ids), attention_mask, asked, cache
        )
        return rewards

    def _own(self, ids: Tensor) -> Tensor:
        """The reward model's ids of policy ids; a stand-in replaces tokens that it lacks."""
        strange = ids >= len(self._read)
        own = self._read.to(ids.device)[ids.masked_fill(strange, 0)]
        return own.masked_fill(strange, self._scorer.known.stand_in)
