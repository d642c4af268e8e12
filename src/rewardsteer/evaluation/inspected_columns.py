"""The tokens that policy, reward model and guided method preferred before each token taken."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rewardsteer.data.text_ids import plain_text
from rewardsteer.decoding.answer import Method
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.evaluation.divergence import Replay, distances
from rewardsteer.evaluation.inspection_records import Alternative
from rewardsteer.models.compatibility import members

_WINDOW = 16  # tokens of context in which a token is turned into text


def token_texts(
    tokenizer: Any, prompt_ids: Sequence[int], completion_ids: Sequence[int]
) -> list[str]:
    """The text that each token adds; for a token that ends within a character its own name."""
    whole, texts = [*prompt_ids, *completion_ids], []
    for index in range(len(prompt_ids), len(whole)):
        before = whole[max(0, index - _WINDOW) : index]
        added = added_text(tokenizer, before, whole[index])
        texts.append(own_name(tokenizer, whole[index]) if added is None else added)
    return texts


def added_text(tokenizer: Any, before: Sequence[int], token: int) -> str | None:
    """The text that a token adds to the few tokens before it; None for one that begins or ends
    within a character."""
    context = plain_text(before, tokenizer, special=True)
    text = plain_text([*before, token], tokenizer, special=True)
    if text.startswith(context) and (added := text[len(context) :]) and "\ufffd" not in added:
        return added
    return None


def own_name(tokenizer: Any, token: int) -> str:
    """A token as its vocabulary writes it."""
    return str(tokenizer.convert_ids_to_tokens(token) or f"#{token}")


class Columns:
    """The columns ``policy``, ``reward_model`` and ``guided`` before each token of a completion."""

    def __init__(
        self, policy: Any, tokenizer: Any, scorer: Any, method: Method, config: DecodingConfig,
        count: int,
    ) -> None:
        self._replay, self._cache = Replay(policy, method, config), scorer.open()
        self._tokenizer, self._scorer, self._count = tokenizer, scorer, count

    @torch.no_grad()
    def before(self, prefix: Sequence[int], index: int, taken: int, name: str) -> dict[str, Any]:
        """Columns and distances before the token ``taken``."""
        step = self._replay.before(prefix, index, name)
        told: dict[str, Any] = {
            "policy": self._column(step.plain.exp(), taken, prefix),
            "reward_model": self._rewards(step.ids, step.mask, step.logits, taken, prefix),
        }
        if step.guided is None:
            return told
        kl, moved = distances(step.guided, step.plain)
        return told | {
            "guided": self._column(step.guided.exp(), taken, prefix), "kl": kl, "moved": moved,
        }

    def _rewards(
        self, ids: Tensor, mask: Tensor, logits: Tensor, taken: int, prefix: Sequence[int]
    ) -> list[Alternative]:
        """The reward model's column: over the vocabulary, or over the policy's likeliest tokens."""
        known = self._scorer.vocabulary_size
        several = members(self._scorer)
        if several[0].gives_next_token:
            values = self._scorer.next_token(ids, mask, self._cache)[0, :known].cpu().double()
            if len(several) == 1 and several[0].autoregressive:
                values = values.log_softmax(-1)
            return self._column(values, taken, prefix)
        likely = logits[0, :known].topk(min(self._count, known, logits.shape[1])).indices.tolist()
        asked = list(dict.fromkeys([*likely, *([taken] if taken < known else [])]))
        found = self._scorer.candidates(ids, mask, torch.tensor([asked]), self._cache)[0].tolist()
        ranked = sorted(zip(asked, found, strict=True), key=lambda pair: -pair[1])
        return [
            self._alternative(token, value, rank, prefix)
            for rank, (token, value) in enumerate(ranked, start=1)
        ]

    def _column(self, values: Tensor, taken: int, prefix: Sequence[int]) -> list[Alternative]:
        """The tokens with the highest values ``[V]``, in order, and the token that was taken."""
        best = values.topk(min(self._count, len(values)))
        pairs = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        # Tokens that are no candidates of the method have no finite value and are left out.
        rows = [
            self._alternative(token, value, rank, prefix)
            for rank, (token, value) in enumerate(pairs, start=1) if math.isfinite(value)
        ]
        if taken < len(values) and all(token != taken for token, _ in pairs):
            rank = 1 + int((values > values[taken]).sum())
            rows.append(self._alternative(taken, float(values[taken]), rank, prefix))
        return rows

    def _alternative(
        self, token: int, value: float, rank: int, prefix: Sequence[int]
    ) -> Alternative:
        [text] = token_texts(self._tokenizer, prefix[-_WINDOW:], [token])
        return Alternative(token_id=token, text=text, value=value, rank=rank)
