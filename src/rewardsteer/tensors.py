"""Records of tensors that several folders share.

Shape legend, used in every docstring:

    B  prompts (for pairs: comparisons) R  rows (2B with chosen and rejected rows)
    T  padded length in tokens         D  hidden size
    V  vocabulary size                 N  positions picked by a mask        K  candidates
    P  packed rows                     W  their width in tokens
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding


@dataclass
class Packing:
    """The tokens of a `PairBatch` in fewer positions: a common prefix once, several pairs per row.

    Attributes:
        input_ids: ``[P, W]``.
        position_ids: ``[P, W]``, as in the unpacked rows: every response continues its prefix.
        blocks: ``[P, W]`` int, number of the block of tokens at each position; -1 where empty.
        parents: ``[P, W]`` int, the block before the position's block in its unpacked row (the
            block itself at the beginning). A position attends to its own block and its parent.
        index: ``[R, T]`` packed position (row · W + column) of each token; 0 on padding.
        segments: ``[S, 5]`` int, blocks and parents for an attention that computes one block after
            the other (`rewardsteer.models.packing.segments`): row, first column and end column of
            the block, first and end column of its parent. None: attention takes a mask.
    """

    input_ids: Tensor
    position_ids: Tensor
    blocks: Tensor
    parents: Tensor
    index: Tensor
    segments: Tensor | None = None


class Candidates(NamedTuple):
    """One-token extensions of the N marked prefixes of a `PairBatch`, with a teacher's rewards.

    Attributes:
        tokens: ``[N, K]``.
        log_policy: ``[N, K]`` log-probabilities of the policy.
        teacher: ``[N, K]`` rewards of the teacher; NaN where it has none for a token.
        drawn: ``[N]`` int, index among the K of the text's actual next token.
        unseen: ``[N, U]`` random tokens that the teacher did not score.
    """

    tokens: Tensor
    log_policy: Tensor
    teacher: Tensor
    drawn: Tensor
    unseen: Tensor

    @property
    def asked(self) -> Tensor:
        """``[N, K + U]``, ``tokens`` and ``unseen`` concatenated."""
        return torch.cat([self.tokens, self.unseen], dim=1)


@dataclass
class PairBatch:
    """Tokenized rows of one training step: pairs of responses, or groups of any size.

    Attributes:
        input_ids: ``[R, T]``. For pairs, rows ``0..B-1`` are chosen, rows ``B..2B-1`` the rejected
            ones in the same order; when ``paired`` is False there are only the chosen rows and
            R = B. For responses with numbers, the responses to a prompt are consecutive rows.
        attention_mask: ``[R, T]``, 1 on real tokens; padding may be on either side.
        response_mask: ``[R, T]`` bool, True on response tokens (end-of-text included).
        prefix_mask: ``[R, T]`` bool, True on the last token of every response prefix that a prefix
            objective uses; all False when no prefixes were drawn.
        margin: ``[B]``, in reward units; 0 where there are no pairs.
        row_ids: the B comparisons' or groups' ids, for messages.
        extras: ``[B]`` each, a data source's further numbers of its rows, by name; NaN where a row
            has none of that name.
        step_labels: ``[N]``, correctness from 0 to 1 of the labelled step that ends at each token
            of ``prefix_mask``; empty where the prefixes are not labelled steps.
        group_ids: ``[R]`` int, ascending, index of each row's prompt among the B prompts; None: the
            rows are those of pairs.
        numbers: ``[R]`` each, the numbers that a data source gave its responses (ratings, labels)
            by name; NaN where a response has none of that name.
        candidates: extensions of the N prefixes that ``prefix_mask`` marks; None without a teacher.
        paired: whether the batch has the rejected rows.
        right_padded: whether all padding is on the right; then, with causal attention, no real
            token attends to padding and the mask can be omitted.
        packing: the same tokens in fewer positions, which the backbone then runs on; None: it runs
            on the padded rows.
        draw: seed of random draws, besides a row's id: the training update; "" in evaluation, where
            the draws are the same each time.
        is_dummy: whether this process has no rows left while others do; the dummy row only takes
            part in collective calls (see `distributed.excluded_from_reductions`).
    """

    input_ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    prefix_mask: Tensor
    margin: Tensor
    row_ids: list[str] = field(default_factory=list)
    extras: dict[str, Tensor] = field(default_factory=dict)
    step_labels: Tensor = field(default_factory=lambda: torch.empty(0))
    group_ids: Tensor | None = None
    numbers: dict[str, Tensor] = field(default_factory=dict)
    candidates: Candidates | None = None
    paired: bool = True
    right_padded: bool = False
    packing: Packing | None = None
    is_dummy: bool = False
    draw: str = ""

    @property
    def groups(self) -> Tensor:
        """``[R]`` index of each row's prompt among the B prompts."""
        if self.group_ids is not None:
            return self.group_ids
        rows = torch.arange(len(self.input_ids), device=self.input_ids.device)
        return rows % len(self.margin)

    @property
    def padded_tokens(self) -> int:
        """Number of positions of the padded rows, R · T."""
        return self.input_ids.numel()

    @property
    def computed_tokens(self) -> int:
        """Number of positions that the backbone computes."""
        return self.padded_tokens if self.packing is None else self.packing.input_ids.numel()

    @property
    def last_positions(self) -> Tensor:
        """``[R]`` index of each row's last real token, for either padding side."""
        columns = torch.arange(self.attention_mask.shape[1], device=self.attention_mask.device)
        return (columns * self.attention_mask).argmax(dim=1)


class TokenStates(NamedTuple):
    """Hidden states of a batch's tokens, from padded or packed rows.

    Attributes:
        flat: ``[M, D]`` last-layer states (after the final norm) of all computed positions.
        flat_indices: ``[R, T]`` index in ``flat`` of each token's state.
    """

    flat: Tensor
    flat_indices: Tensor

    @classmethod
    def of(cls, hidden: Tensor) -> "TokenStates":
        """From states ``[R, T, D]`` of padded rows."""
        places = torch.arange(hidden.shape[0] * hidden.shape[1], device=hidden.device)
        return cls(hidden.flatten(0, 1), places.view(hidden.shape[:2]))

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """States ``[..., D]`` of the tokens at rows and columns ``[...]``."""
        return embedding(self.flat_indices[rows, columns], self.flat)

    def marked(self, mask: Tensor) -> Tensor:
        """States ``[N, D]`` of the tokens that a bool mask ``[R, T]`` marks, row by row."""
        return embedding(self.flat_indices[mask], self.flat)


class PolicyBackup(NamedTuple):
    """Backup from the rewards of one-token extensions to the value of a prefix under a policy, see
    `rewardsteer.objectives.max_constraint`.

    Attributes:
        kind: ``soft``, ``mean`` or ``top_k``.
        temperature: of ``soft``, above 0, in units of rewards.
        tokens: of ``top_k``: the number k of the policy's most probable tokens.
    """

    kind: Literal["soft", "mean", "top_k"]
    temperature: float = 0.0
    tokens: int = 0


class RewardOutput(NamedTuple):
    """Output of a reward model for a `PairBatch`: the rewards of whole sequences and the requested
    fields; other fields are None. `Head.gives` names the fields that a head supports.

    All parameters are used inside the model's forward pass, because engines that shard them (FSDP2,
    ZeRO-3) gather them only there. The output is a named tuple, because those engines look for an
    output's tensors in tuples.

    Attributes:
        sequence_rewards: ``[R]`` reward of each whole row, computed at its last real token.
        states: hidden states of every token.
        prefix_rewards: ``[N]`` rewards of the prefixes that *end* at the N tokens that
            ``PairBatch.prefix_mask`` marks, row by row, left to right.
        best_next_token: ``[N]`` reward of the best one-token extension of each of these prefixes,
            by a token that can be generated.
        soft_next_token: by temperature, the soft maximum ``[N]`` over the same extensions.
        policy_backups: values ``[N]`` of the same prefixes under a policy, by backup.
        candidate_rewards: ``[N, K + U]`` of the extensions in ``PairBatch.candidates``.
        log_probabilities: ``[R, T]`` of each response token given the tokens before it, with the
            rewards as logits over the tokens that can be generated; 0 elsewhere and for a row's
            first token.
        attributes: ``[R, K]`` of each whole row, where a head rates several attributes.
        router_loss: of a mixture of experts in training, before its coefficient.
    """

    sequence_rewards: Tensor
    states: TokenStates | None = None
    prefix_rewards: Tensor | None = None
    best_next_token: Tensor | None = None
    soft_next_token: Mapping[float, Tensor] | None = None
    policy_backups: Mapping[PolicyBackup, Tensor] | None = None
    candidate_rewards: Tensor | None = None
    log_probabilities: Tensor | None = None
    attributes: Tensor | None = None
    router_loss: Tensor | None = None
