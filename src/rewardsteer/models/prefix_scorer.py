"""Reward models on token ids: their properties, and rewards of growing prefixes."""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from rewardsteer.data.template import Template, resolve
from rewardsteer.models.known_ids import KnownIds
from rewardsteer.models.limits import position_limit
from rewardsteer.models.prefix_reader import PrefixReader
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.text_scorer import TextScorer


class Goal(Protocol):
    """The part of `rewardsteer.goals.goal_state.GoalState` that scoring uses."""

    def similarity(self, hidden: Tensor, prompt_state: Tensor) -> Tensor:
        """Cosine ``[R, T]`` of states ``[R, T, D]``; prompt states ``[R, D]``."""


class PrefixScorer(TextScorer):
    """A reward model with its tokenizer and template, which scores growing prefixes: `open` gives a
    cache, and `next_token`, `candidates` and `prefix_values` continue from it.

    Args:
        reward_model: in evaluation mode, on its device.
        tokenizer: the one it was trained with.
        template: how prompts and responses are written; its kind is resolved with the tokenizer.
        objective, reading: what it was trained on and what its rewards mean, see `CheckpointCard`.
        fingerprint: of the weights, for result files; "" when unknown.
        name: folder or other name, for messages.
        share_prompts: compute the prompt of several completions once where that is cheaper.
        unread_id: token that is removed from the end of a row: the padding token of a sequence
            classifier, because transformers takes the reward at the last token that is not padding.
            It matters where that token has another meaning too, as end-of-text for many models.
    """

    reads_tokens = True
    template: Template

    def __init__(
        self, reward_model: RewardModel, tokenizer: Any, template: Template, *,
        objective: str = "", fingerprint: str = "", name: str = "", share_prompts: bool = True,
        unread_id: int | None = None, reading: str = "",
    ) -> None:
        self.reward_model = reward_model.eval()
        self.tokenizer = tokenizer
        self.template = resolve(template, tokenizer)
        self.objective = objective
        self.reading = reading
        self.fingerprint = fingerprint
        self.name = name
        self.share_prompts = share_prompts
        self.unread_id = unread_id

    @property
    def head_kind(self) -> str:
        """The head's name, see `rewardsteer.models.heads.HEADS`."""
        return self.reward_model.head_config.kind

    @property
    def scores_last_token(self) -> bool:
        """Whether the reward of a prefix is the head's output at its last token, so that a prefix
        that has grown costs only its new tokens."""
        return not self.gives_next_token

    @property
    def gives_next_token(self) -> bool:
        """Whether one call gives the rewards of all one-token extensions."""
        return self.reward_model.head.gives_next_token

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids that the tokenizer has; rewards of higher ids are meaningless."""
        rows = self.reward_model.carrier.get_input_embeddings().weight.shape[0]
        return min(len(self.tokenizer), int(rows))

    @functools.cached_property
    def known(self) -> KnownIds:
        """The reward model's token for every id; tokens that only the policy has are replaced."""
        rows = self.reward_model.carrier.get_input_embeddings().weight.shape[0]
        return KnownIds(self.tokenizer, int(rows))

    @property
    def position_limit(self) -> int | None:
        """Most tokens of a row; None without a limit."""
        return position_limit(self.reward_model.config)

    @property
    def hidden_size(self) -> int:
        return int(self.reward_model.carrier.get_input_embeddings().weight.shape[1])

    def open(self) -> PrefixReader:
        """A fresh cache, which counts forward passes and tokens."""
        return PrefixReader(self.reward_model.backbone)

    @torch.no_grad()
    def next_token(
        self, prefix_ids: Tensor, attention_mask: Tensor, cache: PrefixReader | None = None
    ) -> Tensor:
        """Rewards ``[B, V]`` (float32) of all one-token extensions; needs a vocabulary head.

        Args:
            prefix_ids: ``[B, T]``, padded on the left.
            attention_mask: ``[B, T]``.
            cache: from `open`; None computes whole prefixes.
        """
        head = self.reward_model.head
        assert head.gives_next_token, "check_head() first"
        reader = cache if cache is not None else self.open()
        return head.next_token(reader.step(self.known.of(prefix_ids), attention_mask))

    @torch.no_grad()
    def candidates(
        self, prefix_ids: Tensor, attention_mask: Tensor, candidate_ids: Tensor,
        cache: PrefixReader | None = None,
    ) -> Tensor:
        """Rewards ``[B, K]`` (float32) of prefix∘candidate.

        Args:
            prefix_ids: ``[B, T]``, padded on the left.
            attention_mask: ``[B, T]``.
            candidate_ids: ``[B, K]``, below `vocabulary_size`.
            cache: from `open`; None computes whole prefixes.
        """
        reader = cache if cache is not None else self.open()
        prefix_ids, head = self.known.of(prefix_ids), self.reward_model.head
        if head.gives_next_token:
            rewards = head.next_token(reader.step(prefix_ids, attention_mask))
            return rewards.gather(1, candidate_ids.to(rewards.device))
        states = reader.score_candidates(prefix_ids, attention_mask, candidate_ids)
        return head.rewards_of(states, candidate_ids)

    @torch.no_grad()
    def prefix_values(
        self, rows: Sequence[int], prefix_ids: Tensor, attention_mask: Tensor, cache: PrefixReader,
        *, places: int, goal: Goal | None = None, in_step: bool = False,
    ) -> Tensor:
        """Rewards ``[R]`` (float32) of some prefixes by a scalar head; with a goal, the cosines of
        their last tokens' states to it.

        Args:
            rows: the prefixes' places in the cache.
            prefix_ids: ``[R, T]``, padded on the left; they may have grown by different numbers of
                tokens.
            attention_mask: ``[R, T]``.
            cache: from `open`.
            places: rows of the cache.
            goal: a goal that does not depend on the prompt's state.
            in_step: the prefixes are all rows, in order, and each is new or grew by one token.
        """
        ids, head = self.known.of(prefix_ids), self.reward_model.head
        if in_step:
            states = cache.step(ids, attention_mask)
        else:
            states = cache.part_of(rows, places).step(ids, attention_mask)
        if goal is not None:
            return goal.similarity(states[:, None], states)[:, 0]
        assert not head.offset, "check_head() first"
        return head.rewards_of(states, ids[:, -1])
