"""Reward models on token ids, as decoding, evaluation and serving use them.

`Scorer.score` gives rewards of whole responses; `rewardsteer.models.prefix_scorer` those of growing
prefixes. Prompts and responses are rendered and tokenized with the template of training.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rewardsteer.data.render import Tools
from rewardsteer.data.response_end import close_response
from rewardsteer.data.tokenize import encode_rows, paired
from rewardsteer.models import checkpoint
from rewardsteer.models.finite import require_finite
from rewardsteer.models.limits import check_lengths
from rewardsteer.models.prefix_scorer import Goal, PrefixScorer
from rewardsteer.models.reading import HiddenBatch, iter_hidden_states
from rewardsteer.models.steps import encode_steps
from rewardsteer.models.text_scorer import require_steps
from rewardsteer.records import Prompt


@dataclass(frozen=True)
class TokenScores:
    """Rewards of one completion, token by token (T response tokens).

    Attributes:
        rewards: ``[T]`` float64 rewards of the prefixes ending at each token. The last one is the
            reward of the whole completion (end-of-text included where the template appends it).
        similarities: ``[T]`` cosine of each token's state to the goal state; None without a goal.
        prompt_tokens: tokens of the prompt.
    """

    rewards: np.ndarray
    similarities: np.ndarray | None
    prompt_tokens: int


class Scorer(PrefixScorer):
    """A reward model with its tokenizer and template, which scores rows: whole responses, their
    tokens and their steps. See `PrefixScorer` for the arguments.

    Attributes:
        combines_positions: whether the reward of a row is computed from several of its positions;
            that of an autoregressive model always is.
    """

    combines_positions: ClassVar[bool] = False

    @property
    def autoregressive(self) -> bool:
        """Whether rewards are log-probabilities."""
        return checkpoint.is_log_probability(self.reading, self.objective)

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16,
        closed: bool = True,
    ) -> np.ndarray:
        """See `TextScorer.score`."""
        prompt_ids, response_ids = self.encode(prompts, completions, closed=closed)
        return self.score_ids(prompt_ids, response_ids, batch_size=batch_size)

    @torch.no_grad()
    def step_scores(
        self, prompts: Sequence[Prompt], steps: Sequence[Sequence[str]], *, batch_size: int = 16
    ) -> list[np.ndarray]:
        """Rewards (float64) of the prefixes that end at each step, all in one pass.

        The tokens are those of the closed response, its steps joined by a blank line. A step is
        scored at the first token with which the whole step has been read; where the tokenizer
        merges a step's end with the blank line, this token contains part of the line. The last step
        is scored where the response is.
        """
        require_steps(prompts, steps)
        found = [np.empty(0)] * len(steps)
        rows = [row for row, one in enumerate(steps) if len(one)]
        encoded = encode_steps(self, [prompts[row] for row in rows], [steps[row] for row in rows])
        for read in self.read(encoded.prompt_ids, encoded.response_ids, batch_size=batch_size):
            rewards = self._token_rewards(read).cpu().double().numpy()
            for index, row in enumerate(read.rows):
                # Where the prompt is shared, the first columns are not here.
                first = int(read.begins[index]) - len(encoded.prompt_ids[row])
                found[rows[row]] = rewards[index, [first + at for at in encoded.ends[row]]]
        for row, values in enumerate(found):
            require_finite(values, tokens_of=row + 1)
        return found

    def provenance(self) -> dict[str, Any]:
        """See `TextScorer.provenance`; rewards are raw, without an activation."""
        dtype = str(self.reward_model.backbone.dtype).removeprefix("torch.")
        return super().provenance() | {"head": self.head_kind, "dtype": dtype, "activation": "none"}

    @torch.no_grad()
    def score_ids(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]], *,
        batch_size: int | None = 16, batch_tokens: int | None = None,
        numbers: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Rewards ``[N]`` (float64) of token rows exactly as given (see `close_response`);
        ``numbers`` are the rows' own, for messages."""
        rewards = np.empty(len(prompt_ids), dtype=np.float64)
        head = self.reward_model.head
        for read in self.read(
            prompt_ids, response_ids, batch_size=batch_size, batch_tokens=batch_tokens,
        ):
            if self.combines_positions or self.autoregressive:
                whole = self._token_rewards(read)
                rows = torch.arange(len(whole), device=whole.device)
                values = whole[rows, read.last.to(whole.device)]
            else:
                values = head.sequence_rewards(read.hidden, read.ids, read.last)
            rewards[read.rows] = values.cpu().double().numpy()
        require_finite(rewards, numbers)
        return rewards

    def token_scores(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *,
        batch_size: int | None = 16, batch_tokens: int | None = None, goal: Goal | None = None,
    ) -> list[TokenScores]:
        """Per completion, the values of the prefixes ending at each response token.

        Args:
            prompts, completions: N each.
            batch_size: rows of a forward pass; None: as many as ``batch_tokens`` allows.
            batch_tokens: tokens of a forward pass, padding included; None: no limit, or without a
                ``batch_size`` a number that suits the device (`rewardsteer.models.reading`).
            goal: a goal state, for the similarities.

        Raises:
            DataError: different numbers of prompts and completions, or a row too long to read.
            NonFiniteError: a reward is NaN or infinite; names the row.
        """
        prompt_ids, response_ids = self.encode(prompts, completions)
        return self.token_scores_ids(
            prompt_ids, response_ids, batch_size=batch_size, batch_tokens=batch_tokens, goal=goal
        )

    @torch.no_grad()
    def token_scores_ids(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]], *,
        batch_size: int | None = 16, batch_tokens: int | None = None, goal: Goal | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[TokenScores]:
        """`token_scores` of token rows exactly as given; ``numbers`` are their own, for messages.
        """
        scores: dict[int, TokenScores] = {}
        for read in self.read(
            prompt_ids, response_ids, batch_size=batch_size, batch_tokens=batch_tokens
        ):
            rewards = self._token_rewards(read).cpu().double().numpy()
            similar = None
            if goal is not None:
                states = goal.similarity(read.hidden, read.prompt_states)
                similar = states.cpu().double().numpy()
            ends = (read.last + 1).tolist()
            for index, (row, end) in enumerate(zip(read.rows, ends, strict=True)):
                part = slice(end - len(response_ids[row]), end)
                number = row + 1 if numbers is None else numbers[row]
                require_finite(rewards[index, part], tokens_of=number)
                scores[row] = TokenScores(
                    rewards=rewards[index, part],
                    similarities=None if similar is None else similar[index, part],
                    prompt_tokens=len(prompt_ids[row]),
                )
        return [scores[row] for row in range(len(prompt_ids))]

    def _token_rewards(self, read: HiddenBatch) -> Tensor:
        """Rewards ``[R, T]`` of the prefixes ending at each column. An autoregressive model's is
        the sum of the log-probabilities of a prefix's response tokens (arXiv 2410.08193)."""
        head = self.reward_model.head
        if not self.autoregressive:
            return head.token_rewards(read.hidden, read.ids)
        values = head.log_probabilities(read.hidden[:, :-1], read.ids[:, 1:])
        columns = torch.arange(1, read.ids.shape[1], device=values.device)
        values = values.where(columns >= read.begins[:, None], 0.0).cumsum(dim=1)
        return torch.nn.functional.pad(values, (1, 0))

    def encode(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, closed: bool = True,
        tools: Sequence[Tools | None] | None = None,
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of prompts and responses, written with the template of training.

        Args:
            prompts: N texts or conversations (messages may be plain mappings), or one text.
            completions: N texts, or one.
            closed: they have ended; else the template's end is left out.
            tools: functions that the chat template lists, N lists or None each.

        Raises:
            DataError: different numbers of prompts and completions, or what the template refuses.
        """
        prompts, completions = paired(prompts, completions)
        template = self.template if closed else self.template.unclosed()
        rows = encode_rows(prompts, completions, template, self.tokenizer, tools=tools)
        return [row.prompt_ids for row in rows], [self._read_part(row.response_ids) for row in rows]

    def close_response(
        self, response_ids: Sequence[int], stop_ids: Collection[int] = ()
    ) -> list[int]:
        """Generated ids as training wrote them: without the token that ended them, and with the
        end that the template adds, if any. A model that never saw an end in training has no
        meaningful state after one.

        Args:
            response_ids: of a response.
            stop_ids: tokens that end a response of the policy; the reward model's own end always
                counts.
        """
        closed = close_response(response_ids, self.template, self.tokenizer, stop_ids)
        return self._read_part(closed)

    def _read_part(self, ids: list[int]) -> list[int]:
        """Without the tokens at the end that a plain sequence classifier takes for padding."""
        end = len(ids)
        while end and ids[end - 1] == self.unread_id:
            end -= 1
        return ids[:end]

    @torch.no_grad()
    def read(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]], *,
        batch_size: int | None = 16, batch_tokens: int | None = None, first_row: int = 0,
    ) -> Iterator[HiddenBatch]:
        """The states of all rows in batches of similar length; arguments as in `token_scores`.
        ``first_row`` rows came before these, for messages."""
        lengths = [len(p) + len(r) for p, r in zip(prompt_ids, response_ids, strict=True)]
        check_lengths(lengths, self.position_limit, first_row=first_row)
        yield from iter_hidden_states(
            self.reward_model, self.known.of_rows(prompt_ids), self.known.of_rows(response_ids),
            batch_size=batch_size,
            batch_tokens=batch_tokens, share=self.share_prompts,
        )
