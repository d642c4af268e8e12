"""Any token guide as a transformers ``LogitsProcessor``.

    model.generate(**inputs, logits_processor=[GuideProcessor(guide, pad_token_id=…)])

Caches are kept from step to step. They follow rows that beam search reorders, and rejected drafts
(prompt lookup, an assistant). In sampling, transformers applies temperature and top-k after the
guide, as our own loop does.

One processor may serve several calls of ``generate`` in turn. A schedule of the weight counts from
the prompt of each. The processor recognises a new call by its ids, unless the prompts continue the
output of the last call; call `GuideProcessor.reset` before such a call.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.opening import open_session
from rewardsteer.decoding.guides.prefix import Prefix
from rewardsteer.decoding.guides.session import GuideSession
from rewardsteer.errors import ConfigError
from rewardsteer.models.compatibility import members, special_ids


class GuideProcessor(LogitsProcessor):
    """Wraps a token guide.

    Args:
        guide: from `rewardsteer.decoding.generate.build_method`.
        pad_token_id: padding of the prompts, or several tokens that may be; leading ones of a row
            are taken for padding.
        attention_mask: ``[B, T]`` of the prompts. Needed instead when prompts are padded with a
            token that also begins texts (GPT-2 and GPT-NeoX, where padding, begin- and end-of-text
            are one); the processor then serves prompts of this batch alone.

    Raises:
        ConfigError: neither way to know the padding was given; the method does not guide token by
            token; in a call, prompts look padded with another token.
    """

    supports_continuous_batching = False

    def __init__(
        self, guide: LogitsGuide, *, pad_token_id: int | Collection[int] | None = None,
        attention_mask: Tensor | None = None,
    ) -> None:
        if pad_token_id is None and attention_mask is None:
            raise ConfigError(
                "GuideProcessor must know which tokens are padding: pass pad_token_id, or the "
                "prompts' attention_mask."
            )
        if not isinstance(guide, LogitsGuide):
            raise ConfigError(
                f"The method {guide.name!r} does not guide token by token, which is all that a "
                "logits processor can do; rewardsteer.decoding.generate.generate runs it."
            )
        self._guide = guide
        pads = [pad_token_id] if isinstance(pad_token_id, int) else list(pad_token_id or ())
        self._pads = torch.tensor(pads, dtype=torch.long)
        self._prompt_mask = None if attention_mask is None else attention_mask.cpu().long()
        self._session: GuideSession | None = None
        self._last = torch.empty(0, 0, dtype=torch.long)
        self._prompt = 0

    def reset(self) -> None:
        """Forget the last call of ``generate``: the next ids are prompts."""
        self._session = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Guided scores ``[B, V]`` from ids ``[B, T]`` and the policy's scores ``[B, V]``.

        Raises:
            NonFiniteError: rewards of some row are no numbers.
        """
        ids = input_ids.cpu()
        mask = self._mask(ids)
        origins = self._origins(ids)
        if self._session is None or origins is None:
            self._check_beginnings(ids, mask)
            self._session = open_session(self._guide)
            prompts = ids if self._prompt_mask is None else self._prompt_mask
            self._prompt = prompts.shape[1]
        elif origins != list(range(len(ids))):
            self._session.select(origins)
        names = [str(row) for row in range(len(ids))]
        prefix = Prefix(ids, mask, [ids.shape[1] - self._prompt] * len(ids), names)
        guided = self._session.scores(prefix, scores)
        for error in prefix.failed.values():
            raise error
        self._last = ids
        return guided.to(scores.dtype)

    def _origins(self, ids: Tensor) -> list[int] | None:
        """For each row, a row of the last call whose tokens it continues: its own, or with beam
        search another one. None: these are other prompts. Rejected drafts count as
        continued too: all but a row's last token must be in some row of the last ids."""
        width, last = ids.shape[1], self._last
        if len(ids) != len(last) or not self._prompt < width <= last.shape[1] + 1:
            return None
        before, known = ids[:, :-1], last[:, : width - 1]
        if torch.equal(before, known):
            return list(range(len(ids)))
        same = (before[:, None] == known[None]).all(dim=2)
        found: list[int] = same.long().argmax(dim=1).tolist()
        return found if bool(same.any(dim=1).all()) else None

    def _check_beginnings(self, ids: Tensor, mask: Tensor) -> None:
        """Refuse prompts of which some begin with a special token, as if padded with it."""
        tokenizer = getattr(members(self._guide.scorer)[0], "tokenizer", None)
        first = ids[:, 0][mask[:, 0] == 1]
        alike = bool((ids[:, 0] == ids[0, 0]).all())
        if self._prompt_mask is not None or tokenizer is None or alike:
            return
        suspects = special_ids(tokenizer) - {tokenizer.bos_token_id}
        found = next((one for one in first.tolist() if one in suspects), None)
        if found is not None:
            raise ConfigError(
                f"Some prompts of the batch begin with {tokenizer.convert_ids_to_tokens(found)!r}, "
                "which looks like padding; pass the pad_token_id of the prompts, or "
                "attention_mask=inputs['attention_mask']."
            )

    def _mask(self, ids: Tensor) -> Tensor:
        if self._prompt_mask is None:
            padding = torch.isin(ids, self._pads).long().cumprod(dim=1)
            padding[:, -1] = 0
            return 1 - padding
        prompts = self._prompt_mask
        if len(ids) % len(prompts) or ids.shape[1] < prompts.shape[1]:
            raise ConfigError(
                f"The attention_mask given is for {tuple(prompts.shape)} prompt tokens, but the "
                f"batch is {tuple(ids.shape)}; make a processor for each batch."
            )
        # Beams and repeated samples of a prompt stand next to each other.
        prompts = prompts.repeat_interleave(len(ids) // len(prompts), dim=0)
        grown = torch.ones(len(ids), ids.shape[1] - prompts.shape[1], dtype=torch.long)
        return torch.cat([prompts, grown], dim=1)


def padding_of(tokenizer: Any) -> frozenset[int]:
    """The tokens that may pad prompts, if none is given: those for padding and end-of-text.

    Raises:
        ConfigError: they may also begin a text.
    """
    found = {tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
    if not found or tokenizer.bos_token_id in found:
        raise ConfigError(
            "Padding cannot be told from the beginning of a text with this tokenizer; pass "
            "attention_mask=inputs['attention_mask']."
        )
    return frozenset(found)
