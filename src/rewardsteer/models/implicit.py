"""Implicit rewards: log-ratios of a policy's and its reference's probability of a response.

A policy trained by DPO is a reward model: r = β Σ (log π − log π_ref) over the response's tokens,
the end of the response included (arXiv 2305.18290). Sums up to a token are process rewards (arXiv
2412.01981). Without a reference there are the forms of RewardBench: sum, mean or minus the norm of
the log-probabilities.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from rewardsteer.data.render import render_prompt, render_response
from rewardsteer.data.template import Template, resolve
from rewardsteer.data.tokenize import encode_prompts, encode_rows, paired
from rewardsteer.devices import AUTO
from rewardsteer.errors import ConfigError, DataError, MismatchError
from rewardsteer.models.causal import load_causal, log_probabilities
from rewardsteer.models.checkpoint import fingerprint, load_tokenizer
from rewardsteer.models.compatibility import first_difference
from rewardsteer.models.finite import require_finite
from rewardsteer.models.limits import check_length, position_limit
from rewardsteer.models.places import locate
from rewardsteer.models.scorer import TokenScores
from rewardsteer.models.steps import encode_steps
from rewardsteer.models.text_scorer import TextScorer, require_steps
from rewardsteer.records import Prompt

Reduction = Literal["sum", "mean", "norm"]
# Tokens of a forward pass; each has logits over the whole vocabulary.
_TOKENS = 4096


class ImplicitScorer(TextScorer):
    """The implicit reward of a policy, against its reference or alone.

    Args:
        policy, reference: causal LMs on one device; no reference: the policy's log-probabilities.
        tokenizer: of both.
        template: how prompts and responses are written; None: as the tokenizer says.
        beta: factor of the rewards; it does not change the order of responses.
        reduction: of the tokens' values: ``sum``, ``mean``, or ``norm`` (minus the Euclidean norm),
            which is for a policy alone.
        name, fingerprint: for messages and result files.

    Raises:
        ConfigError: ``norm`` with a reference, or a ``beta`` that is not positive.
    """

    template: Template

    def __init__(
        self, policy: Any, reference: Any, tokenizer: Any, template: Template | None = None, *,
        beta: float = 0.1, reduction: Reduction = "sum", name: str = "", fingerprint: str = "",
    ) -> None:
        _check_settings(beta, reduction, alone=reference is None)
        self.policy, self.reference = policy.eval(), reference and reference.eval()
        self.tokenizer = tokenizer
        self.template = resolve(template or Template(), tokenizer)
        self.beta, self.reduction = beta, reduction
        self.name, self.fingerprint = name, fingerprint

    @classmethod
    def load(
        cls, source: str | Path, reference: str | Path | None = None, *,
        reference_free: bool = False, device: str | torch.device = AUTO,
        dtype: torch.dtype | None = None, template: Template | None = None,
        revision: str | None = None, beta: float = 0.1, reduction: Reduction = "sum",
        **load_options: Any,
    ) -> "ImplicitScorer":
        """Load a policy and its reference.

        Args:
            source: the policy: a folder or a name on the hub.
            reference: the model that its training began with.
            reference_free: score by the policy alone.
            device: of both: ``auto`` (CUDA, else MPS, else CPU) or torch's name.
            dtype: of the weights; None: as saved.
            template: how prompts and responses are written; None: as the tokenizer says.
            revision: of the policy on the hub.
            beta, reduction: see the class.
            load_options: passed on to ``from_pretrained`` of both.

        Raises:
            CheckpointError: a model cannot be loaded.
            ConfigError: neither ``reference`` nor ``reference_free``, or both.
            MismatchError: the two have different vocabularies.
        """
        if (reference is None) != reference_free:
            raise ConfigError(
                "An implicit reward compares a policy with the model that its training began with: "
                "pass reference=FOLDER_OR_NAME, or reference_free=True to score by the policy "
                "alone."
            )
        _check_settings(beta, reduction, alone=reference is None)
        folder = locate(source, revision)
        tokenizer, other, prints = load_tokenizer(folder), None, [fingerprint(folder)]
        if reference is not None:
            base = locate(reference)
            _check_tokenizers(tokenizer, load_tokenizer(base), source, reference)
            other = load_causal(base, device, dtype, load_options)
            prints.append(fingerprint(base))
        policy = load_causal(folder, device, dtype, load_options)
        return cls(
            policy, other, tokenizer, template, beta=beta, reduction=reduction,
            name=str(source), fingerprint="-".join(prints),
        )

    @property
    def position_limit(self) -> int | None:
        """Longest row that both models can read, in tokens; None where they have no limit."""
        limits = [position_limit(one.config) for one in self._models]
        return min((one for one in limits if one is not None), default=None)

    @property
    def vocabulary_size(self) -> int:
        """Token ids that both models know."""
        rows = [one.get_input_embeddings().weight.shape[0] for one in self._models]
        return min(len(self.tokenizer), *map(int, rows))

    @property
    def _models(self) -> list[Any]:
        return [one for one in (self.policy, self.reference) if one is not None]

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16,
        closed: bool = True,
    ) -> np.ndarray:
        """Rewards ``[N]`` (float64) in the order given; see `TextScorer.score`.

        Raises:
            DataError: different numbers of prompts and completions, or a row too long to read.
            NonFiniteError: a reward is NaN or infinite; names the row.
        """
        rows = self.encode(prompts, completions, closed=closed)
        return self.score_ids(*rows, batch_size=batch_size)

    def token_scores(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16
    ) -> list[TokenScores]:
        """Per completion, the rewards of the prefixes that end at each response token."""
        return self.token_scores_ids(*self.encode(prompts, completions), batch_size=batch_size)

    def step_scores(
        self, prompts: Sequence[Prompt], steps: Sequence[Sequence[str]], *, batch_size: int = 16
    ) -> list[np.ndarray]:
        """One value per step: the reduction of its own tokens, so with ``sum`` the difference of
        the prefixes' rewards at its ends. A step begins with the blank line before it; the last one
        holds the end of the response."""
        require_steps(prompts, steps)
        rows = [row for row, own in enumerate(steps) if len(own)]
        found = [np.empty(0)] * len(steps)
        encoded = encode_steps(self, [prompts[row] for row in rows], [steps[row] for row in rows])
        values = self._values(encoded.prompt_ids, encoded.response_ids, batch_size=batch_size)
        for row, prompt, ends, own in zip(
            rows, encoded.prompt_ids, encoded.ends, values, strict=True
        ):
            after = [end + 1 - len(prompt) for end in ends]
            found[row] = np.array([
                self._reduced(own[begin:end])[-1] if end > begin else 0.0
                for begin, end in zip([0, *after[:-1]], after, strict=True)
            ])
            require_finite(found[row], tokens_of=row + 1)
        return found

    def provenance(self) -> dict[str, Any]:
        """Models, template and form of the reward."""
        return {
            "kind": "implicit", "policy": self.name, "reference_free": self.reference is None,
            "reference": getattr(self.reference, "name_or_path", None), "beta": self.beta,
            "reduction": self.reduction, "template": self.template.model_dump(mode="json"),
            "dtype": str(self.policy.dtype).removeprefix("torch."),
            "fingerprint": self.fingerprint,
        }

    # --- rows of token ids ------------------------------------------------------------------------

    def encode(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, closed: bool = True
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of prompts and responses, tokenized together and split after the prompt."""
        prompts, completions = paired(prompts, completions)
        template = self.template if closed else self.template.unclosed()
        rows = encode_rows(prompts, completions, template, self.tokenizer)
        if template.kind == "chat":
            return [one.prompt_ids for one in rows], [one.response_ids for one in rows]
        written = [render_prompt(one, template, self.tokenizer) for one in prompts]
        joint = encode_prompts([
            before + render_response(text, template)
            for before, text in zip(written, completions, strict=True)
        ], template, self.tokenizer)
        prompt_ids, response_ids = [], []
        for row, whole in zip(rows, joint, strict=True):
            cut = len(row.prompt_ids)
            end = row.response_ids[-1:] if template.append_eos else []
            if end and whole[cut:][-1:] == end:
                end = []  # a text that ends in end-of-text is closed once
            prompt_ids.append(whole[:cut])
            response_ids.append([*whole[cut:], *end])
        return prompt_ids, response_ids

    def score_ids(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]], *,
        batch_size: int | None = 16, batch_tokens: int | None = None,
        numbers: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Rewards ``[N]`` (float64) of token rows exactly as given."""
        values = self._values(
            prompt_ids, response_ids, batch_size=batch_size, batch_tokens=batch_tokens
        )
        rewards = np.array([self._reduced(one)[-1] for one in values], dtype=np.float64)
        require_finite(rewards, numbers)
        return rewards

    def token_scores_ids(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]], *,
        batch_size: int | None = 16, batch_tokens: int | None = None,
        numbers: Sequence[int] | None = None, goal: Any = None,
    ) -> list[TokenScores]:
        """`token_scores` of token rows exactly as given.

        Raises:
            MismatchError: a goal state is given; implicit rewards have no states.
        """
        if goal is not None:
            raise MismatchError(
                "An implicit reward has no hidden states to compare with a goal state; use a "
                "reward model with a head."
            )
        values = self._values(
            prompt_ids, response_ids, batch_size=batch_size, batch_tokens=batch_tokens
        )
        found = []
        for row, (prompt, one) in enumerate(zip(prompt_ids, values, strict=True)):
            rewards = self._reduced(one)
            require_finite(rewards, tokens_of=row + 1 if numbers is None else numbers[row])
            found.append(TokenScores(rewards, None, len(prompt)))
        return found

    def _reduced(self, values: np.ndarray) -> np.ndarray:
        """Rewards of the prefixes that end at each of some tokens."""
        if self.reduction == "norm":
            return -self.beta * np.sqrt(np.cumsum(values**2))
        sums = self.beta * np.cumsum(values)
        return sums / np.arange(1, len(values) + 1) if self.reduction == "mean" else sums

    def _values(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]], *,
        batch_size: int | None, batch_tokens: int | None = None,
    ) -> list[np.ndarray]:
        """log π − log π_ref, or log π, of every response token. One that nothing stands before
        has 0."""
        rows = [([*p], [*r]) for p, r in zip(prompt_ids, response_ids, strict=True)]
        limit = self.position_limit
        for number, (prompt, response) in enumerate(rows, start=1):
            if not response:
                raise DataError(f"Row {number} holds no token to score; give it a completion.")
            check_length(number, len(prompt) + len(response), limit)
        limits = batch_size, batch_tokens or _TOKENS
        found = list(log_probabilities(self.policy, rows, *limits))
        if self.reference is None:
            return found
        base = log_probabilities(self.reference, rows, *limits)
        return [ours - theirs for ours, theirs in zip(found, base, strict=True)]


def _check_tokenizers(
    tokenizer: Any, other: Any, policy: str | Path, reference: str | Path
) -> None:
    if first_difference(tokenizer, other) is not None:
        raise MismatchError(
            f"The policy {policy} and the reference {reference} must have one vocabulary, for "
            "their log-probabilities of the same tokens are compared, and theirs differ; use the "
            "model that the policy's training began with."
        )


def _check_settings(beta: float, reduction: str, *, alone: bool) -> None:
    """Raise `ConfigError` on settings that give no rewards; ``alone``: there is no reference."""
    if reduction not in ("sum", "mean", "norm"):
        raise ConfigError(f"Expected reduction sum, mean or norm, got {reduction!r}.")
    if not (math.isfinite(beta) and beta > 0):
        raise ConfigError(f"Expected beta= as a positive number, got {beta}.")
    if reduction == "norm" and not alone:
        raise ConfigError(
            "reduction='norm' is for a policy without a reference; use sum or mean."
        )
