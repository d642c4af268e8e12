"""Reward models on token ids: what is known of one, and the rewards of growing prefixes."""

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
    """The part of a goal state that scoring uses."""

    def similarity(self, hidden: Tensor, prompt_state: Tensor) -> Tensor:
        """Cosine ``[R, T]`` of states ``[R, T, D]``; prompt states ``[R, D]``."""


class PrefixScorer(TextScorer):
    """A reward model with its tokenizer and template, asked about growing prefixes: `open` gives a
    cache, `next_token`, `candidates` and `prefix_values` read on from it.

    Args:
        reward_model: in evaluation mode, on its device.
        tokenizer: the one it was trained with.
        template: how prompts and responses are written; its kind is resolved with the tokenizer.
        objective, reading: what it was trained on and what its rewards mean, see `CheckpointCard`.
        fingerprint: of the weights, for result files; "" when unknown.
        name: folder or other name, for messages.
        share_prompts: read the prompt of several completions once where that is cheaper.
        unread_id: token that is not read at the end of a row: the padding token of a sequence
            classifier, whose plain form reads the last token that is none. It matters where that
            token has another meaning too, as end-of-text has for many models.
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
        """Whether the reward of a prefix is what the head says at its last token, so that a prefix
        that has grown costs only its new tokens."""
        return not self.gives_next_token

    @property
    def gives_next_token(self) -> bool:
        """Whether one call gives the rewards of all one-token extensions."""
        return self.reward_model.head.gives_next_token

    @property
    def vocabulary_size(self) -> int:
        """Token ids that the tokenizer knows: rewards of higher ones mean nothing."""
        rows = self.reward_model.carrier.get_input_embeddings().weight.shape[0]
        return min(len(self.tokenizer), int(rows))

    @functools.cached_property
    def known(self) -> KnownIds:
        """What is read for every token id: tokens that only a policy knows never reach the reward
        model."""
        rows = self.reward_model.carrier.get_input_embeddings().weight.shape[0]
        return KnownIds(self.tokenizer, int(rows))

    @property
    def position_limit(self) -> int | None:
        """Longest row the backbone can read, in tokens; None when it has no limit."""
        return position_limit(self.reward_model.config)

    @property
    def hidden_size(self) -> int:
        """Numbers in a hidden state."""
        return int(self.reward_model.carrier.get_input_embeddings().weight.shape[1])

    def open(self) -> PrefixReader:
        """A fresh cache for `next_token` and `candidates`; it counts what is read."""
        return PrefixReader(self.reward_model.backbone)

    @torch.no_grad()
    def next_token(
        self, prefix_ids: Tensor, attention_mask: Tensor, cache: PrefixReader | None = None
    ) -> Tensor:
        """Rewards ``[B, V]`` (float32) of all one-token extensions; needs a vocabulary head.

        Args:
            prefix_ids: ``[B, T]``, padded on the left.
            attention_mask: ``[B, T]``.
            cache: from `open`; None reads everything anew.
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
            cache: from `open`; None reads everything anew.
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
        """Rewards ``[R]`` (float32) of some prefixes, by a scalar head, or with a goal cosines of
        their last tokens' states to it.

        Args:
            rows: the prefixes' places in the cache.
            prefix_ids: ``[R, T]``, padded on the left; they may have grown by different numbers of
                tokens.
            attention_mask: ``[R, T]``.
            cache: from `open`.
            places: rows of the cache.
            goal: one that does not depend on the prompt's state.
            in_step: these are all rows, in order, and all are new or grew by one token.
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
