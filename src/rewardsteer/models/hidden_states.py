"""Last-layer hidden states of token rows from a Hugging Face model."""

from typing import Any

import torch
from torch import Tensor, nn

from rewardsteer.models.backbone import accepts, backbone_of
from rewardsteer.models.capabilities import supports_left_padding
from rewardsteer.models.packing.mask import block_mask
from rewardsteer.models.router import router_coefficient, router_loss
from rewardsteer.tensors import Packing, PairBatch, TokenStates


class HiddenStatesModel(nn.Module):
    """Last-layer states of token rows, padded on either side or packed.

    Args:
        base: the Hugging Face model that holds the parameters (may be wrapped by peft).

    Attributes:
        router_loss: in training, the router loss of the latest forward pass, where the backbone is
            a mixture of experts; else None.
    """

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base
        self.router_loss: Tensor | None = None

    @property
    def config(self) -> Any:
        """The Hugging Face configuration of the backbone."""
        return self.base.config

    @property
    def carrier(self) -> Any:
        """The Hugging Face model itself, without a peft wrapper."""
        return self.base.get_base_model() if hasattr(self.base, "get_base_model") else self.base

    @property
    def backbone(self) -> Any:
        """The part of the carrier that gives hidden states (after the final norm)."""
        return backbone_of(self.carrier)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Recompute activations in the backward pass (the Trainer calls this)."""
        self.base.gradient_checkpointing_enable(**options)

    def hidden_states(
        self, input_ids: Tensor, attention_mask: Tensor | None, *, real: Tensor | None = None
    ) -> Tensor:
        """Last-layer states ``[R, T, D]``; positions count real tokens only, so padding on either
        side gives the same states, for learned absolute positions too.

        ``real [R, T]`` marks the tokens that count for the router loss; None: those of the mask.
        A mask of None means that rows are padded on the right. Under causal attention no real token
        sees what follows it, so no mask is needed, and attention takes its faster, unmasked path;
        the states on padding are then meaningless.
        """
        options: dict[str, Any] = {"use_cache": False}
        # Asked of every process, whatever its rows: the test runs the layers, whose shards all
        # processes gather together.
        if attention_mask is not None and not supports_left_padding(self.backbone) and (
            not bool(attention_mask[:, 0].all())
        ):
            return self._from_the_left(input_ids, attention_mask)
        real = attention_mask if real is None else real
        if attention_mask is not None:
            options |= self.positions((attention_mask.long().cumsum(1) - 1).clamp(min=0))
        return self._call(
            real, input_ids=input_ids, attention_mask=attention_mask, **options
        )

    def _call(self, real: Tensor | None, **options: Any) -> Tensor:
        """States of the backbone; in training `router_loss` is that of the tokens ``real``."""
        routed = self.training and router_coefficient(self.backbone) > 0
        if routed:
            options["output_router_logits"] = True
        output = self.backbone(**options)
        states: Tensor = output.last_hidden_state
        if routed:
            mask = torch.ones_like(options["input_ids"]) if real is None else real
            self.router_loss = router_loss(self.backbone, output, mask)
        return states

    def _from_the_left(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """`hidden_states` of left-padded rows, computed on rows that are padded on the right."""
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)
        first = attention_mask.long().argmax(dim=1)[:, None]
        moved = input_ids.gather(1, (columns + first).clamp(max=len(columns) - 1))
        real = columns < attention_mask.sum(dim=1, keepdim=True)
        states = self.hidden_states(moved, None, real=real)
        back = (columns - first).clamp(min=0)[:, :, None].expand(-1, -1, states.shape[2])
        return states.gather(1, back.to(states.device))

    def positions(self, positions: Tensor) -> dict[str, Tensor]:
        """Positions ``[R, T]`` as a keyword of the backbone; empty where it takes no positions."""
        return {"position_ids": positions} if accepts(self.backbone, "position_ids") else {}

    def packed_states(self, packing: Packing) -> Tensor:
        """Last-layer states ``[P, W, D]`` of packed rows. Each token has the state that its own row
        alone would give it, for models that `rewardsteer.models.packing.choose` accepts."""
        config = self.backbone.config
        mask = block_mask(packing, config._attn_implementation, self.backbone.dtype)
        return self._call(
            packing.blocks >= 0, input_ids=packing.input_ids, position_ids=packing.position_ids,
            attention_mask=mask, use_cache=False,
        )

    @property
    def _no_split_modules(self) -> list[str]:
        """Classes of layers that FSDP shards as one each: the backbone's own."""
        return list(self.carrier._no_split_modules or ())

    def states(self, batch: PairBatch) -> TokenStates:
        """The state of each token of a batch, whose rows may be packed."""
        self.router_loss = None
        if batch.packing is not None:
            packed = self.packed_states(batch.packing)
            return TokenStates(packed.flatten(0, 1), batch.packing.index)
        mask = None if batch.right_padded else batch.attention_mask
        states = self.hidden_states(batch.input_ids, mask, real=batch.attention_mask)
        return TokenStates.of(states)
