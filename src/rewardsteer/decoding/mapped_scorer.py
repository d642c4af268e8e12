"""A reward model that is asked in the policy's token ids."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rewardsteer.models.compatibility import special_tokens

_UNKNOWN = -1
_TASKS = ("eos_token", "bos_token", "pad_token", "unk_token")


def token_map(policy_tokenizer: Any, reward_tokenizer: Any) -> list[int] | None:
    """The reward model's id of each of the policy's tokens, -1 for a special token that it lacks;
    None if the vocabularies hold different tokens."""
    ours, theirs = policy_tokenizer.get_vocab(), reward_tokenizer.get_vocab()
    special = special_tokens(policy_tokenizer) | special_tokens(reward_tokenizer)
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


class MappedScorer:
    """A reward model that is asked in the policy's ids.

    Args:
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
