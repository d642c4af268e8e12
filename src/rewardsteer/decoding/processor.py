"""Any token guide as a transformers ``LogitsProcessor``.

    model.generate(**inputs, logits_processor=[GuideProcessor(guide, pad_token_id=…)])

The guide's caches are kept from step to step, and follow rows that beam search reorders; rows that
do not go on from the last call are read anew. In sampling, transformers applies temperature and
top-k after the guide, as our own loop does.
"""

import torch
from torch import Tensor
from transformers import LogitsProcessor

from rewardsteer.decoding.guide import GuideSession, Prefix, TokenGuide
from rewardsteer.errors import ConfigError


class GuideProcessor(LogitsProcessor):
    """Wraps a token guide.

    Args:
        guide: from `rewardsteer.decoding.generate.build_method`.
        pad_token_id: padding of the prompts; leading ones of a row are taken for padding.
        attention_mask: ``[B, T]`` of the prompts. Needed instead when prompts are padded with a
            token that also begins texts (GPT-2 and GPT-NeoX, where padding, begin- and end-of-text
            are one); the processor then serves prompts of this batch alone.

    Raises:
        ConfigError: neither way to know the padding was given.
    """

    supports_continuous_batching = False

    def __init__(
        self, guide: TokenGuide, *, pad_token_id: int | None = None,
        attention_mask: Tensor | None = None,
    ) -> None:
        if pad_token_id is None and attention_mask is None:
            raise ConfigError(
                "GuideProcessor must know which tokens are padding: pass pad_token_id, or the "
                "prompts' attention_mask."
            )
        self._guide = guide
        self._pad = pad_token_id
        self._prompt_mask = None if attention_mask is None else attention_mask.cpu().long()
        self._session: GuideSession | None = None
        self._last = torch.empty(0, 0, dtype=torch.long)
        self._steps = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Guided scores ``[B, V]`` from ids ``[B, T]`` and the policy's scores ``[B, V]``."""
        ids = input_ids.cpu()
        grown = len(ids) == len(self._last) and ids.shape[1] == self._last.shape[1] + 1
        if self._session is None or not grown:
            self._session, self._steps = self._guide.open(), 0
        names = [str(row) for row in range(len(ids))]
        prefix = Prefix(ids, self._mask(ids), [self._steps] * len(ids), names)
        guided = self._session.scores(prefix, scores)
        self._last, self._steps = ids, self._steps + 1
        return guided.to(scores.dtype)

    def _mask(self, ids: Tensor) -> Tensor:
        if self._prompt_mask is None:
            assert self._pad is not None
            padding = ids.eq(self._pad).long().cumprod(dim=1)
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
