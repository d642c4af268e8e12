"""Reward models: a backbone with a head, from token rows to rewards.

The parameters live in an ordinary Hugging Face model (``base``), so a saved folder is one that
plain transformers, TRL and vLLM load: a one-label sequence classifier for the scalar head, a causal
language model whose logits are rewards for the vocabulary head.
"""

import shutil
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rewardsteer.errors import CheckpointError, OutputError
from rewardsteer.kernels.vocabulary_soft import OutputLayer
from rewardsteer.models.adapter_folder import check_base
from rewardsteer.models.checkpoint import (
    ADAPTER_CONFIG,
    CheckpointCard,
    read_card,
    save_tokenizer,
    write_card,
)
from rewardsteer.models.heads.base import Head, save_own
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.layers import install_wide
from rewardsteer.models.hidden_states import HiddenStatesModel
from rewardsteer.models.loading import load_base, refuse_absent, refuse_pickles
from rewardsteer.models.placement import placed
from rewardsteer.models.places import locate
from rewardsteer.models.start import check_trained_head, find_start, load_carrier, thawed
from rewardsteer.outputs import reason, remedy, replace_folder
from rewardsteer.tensors import PairBatch, PolicyBackup, RewardOutput


class RewardModel(HiddenStatesModel):
    """A reward model over token rows.

    Args:
        base: the Hugging Face model that holds the parameters (may be wrapped by peft).
        head_config: which head computes the rewards.
        value_head: the head's own module, see `Head.build`.
    """

    def __init__(
        self, base: Any, head_config: HeadConfig, value_head: nn.Module | None = None
    ) -> None:
        super().__init__(base)
        install_wide(base)
        if value_head is not None:
            # The carrier's own linear head stays in the folder but takes no part; distributed
            # training would wait for its gradient.
            head_config.head_class.layer(base).requires_grad_(False)
        self.head_config = head_config
        self.value_head = value_head
        self._policy: list[RewardModel] = []

    @property
    def policy(self) -> "RewardModel | None":
        """The frozen policy whose next-token probabilities `PolicyBackup` needs: a language model
        with its output layer as vocabulary head. It is not among the model's parameters."""
        return self._policy[0] if self._policy else None

    def set_policy(self, policy: "RewardModel") -> None:
        """Set the frozen policy, which is on the device of the batches."""
        # In a list, so that torch does not register it as a submodule.
        self._policy = [policy.requires_grad_(False).eval()]

    @property
    def head(self) -> Head:
        """The head on the current parameters (adapters included)."""
        made: Head = self.head_config.head_class.of(self.carrier, self.value_head)
        return made

    def forward(
        self, batch: PairBatch, needs: Collection[str] = (), temperatures: Collection[float] = (),
        backups: Collection[PolicyBackup] = (),
    ) -> RewardOutput:
        """Rewards of whole rows, and the fields of `RewardOutput` that ``needs`` names;
        ``temperatures`` are those of ``soft_next_token``, ``backups`` those of
        ``policy_backups``."""
        states, head, last = self.states(batch), self.head, batch.last_positions
        found: dict[str, Any] = {}
        if "states" in needs:
            found["states"] = states
        if "prefix_rewards" in needs:
            found["prefix_rewards"] = head.prefix_rewards(
                states, batch, *batch.prefix_mask.nonzero(as_tuple=True)
            )
        if "best_next_token" in needs:
            found["best_next_token"] = head.best_next_token(states.marked(batch.prefix_mask))
        if "soft_next_token" in needs:
            marked = states.marked(batch.prefix_mask)
            found["soft_next_token"] = {t: head.soft_next_token(marked, t) for t in temperatures}
        if "policy_backups" in needs:
            marked, layer = states.marked(batch.prefix_mask), self._policy_layer(batch)
            found["policy_backups"] = {
                one: head.policy_backup(marked, one, layer) for one in backups
            }
        if "candidate_rewards" in needs:
            assert batch.candidates is not None, "of which tokens"
            found["candidate_rewards"] = head.candidate_rewards(
                states.marked(batch.prefix_mask), batch.candidates.asked
            )
        if "log_probabilities" in needs:
            found["log_probabilities"] = head.response_log_probabilities(states, batch)
        rows = torch.arange(len(last), device=last.device)
        if "attributes" in needs:
            found["attributes"] = head.attributes(states.at(rows, last))
        whole = head.prefix_rewards(states, batch, rows, last)
        return RewardOutput(whole, router_loss=self.router_loss, **found)

    @torch.no_grad()
    def _policy_layer(self, batch: PairBatch) -> OutputLayer:
        """The policy's states at the marked prefixes, and its output layer."""
        assert self.policy is not None, "a backup under a policy needs one"
        # Rows are packed for the reward model; the policy may not support it.
        states = self.policy.states(replace(batch, packing=None))
        layer = self.policy.carrier.get_output_embeddings()
        return OutputLayer(states.marked(batch.prefix_mask), layer.weight, layer.bias)

    @classmethod
    def from_base(
        cls, source: str | Path | Any, head: HeadConfig, *, dtype: torch.dtype | None = None,
        attn_implementation: str | None = None, again: bool = False, **load_options: Any,
    ) -> "RewardModel":
        """Put a head on a model: a new one on a causal language model, or the head that a trained
        reward model has. Adapters are folded into the weights.

        Args:
            source: a model folder, an adapter's folder, or a hub name.
            head: the head to build or to continue with. A new scalar head draws from torch's global
                generator.
            dtype: parameter type; None keeps the saved one.
            attn_implementation: ``sdpa``, ``eager``, ``flash_attention_2``, …; None lets
                transformers choose.
            again: the model was loaded before in this run; its start is not logged once more.
            load_options: passed on to ``from_pretrained`` (quantization, device map).

        Raises:
            CheckpointError: the model cannot be loaded or has no place for the head.
        """
        start = find_start(source)
        check_trained_head(start, head)
        options = dict(load_options, dtype=dtype or "auto", trust_remote_code=False)
        if attn_implementation:
            options["attn_implementation"] = attn_implementation
        if start.adapter and start.card:
            del options["trust_remote_code"]
            return thawed(cls._from_adapter(start.adapter, device=None, **options))
        base, trained = load_carrier(start, head, options, again=again)
        own = head.head_class.attach(base, head, start.source, start.card, trained=trained)
        return cls(base, head, own)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, dtype: torch.dtype | None = None,
        device: str | torch.device | None = None, card: CheckpointCard | None = None,
        **load_options: Any,
    ) -> "RewardModel":
        """Load a folder written by `save_pretrained`, or a plain one-label sequence classifier.

        An adapter is put on its base model and merged. ``device``: see `placed`. ``card``: in place
        of the folder's own, None: that one.

        Raises:
            CheckpointError: missing or damaged folder, or not a reward model.
            ConfigError: there is no such device.
            MismatchError: the base model is no longer the one that an adapter was trained on.
        """
        folder = locate(folder)
        if (folder / ADAPTER_CONFIG).exists():
            return cls._from_adapter(folder, dtype=dtype, device=device, **load_options)
        device, load_options = placed(folder, device, load_options)
        card = read_card(folder) if card is None else card
        head = card.head
        refuse_pickles(folder, head.head_class.auto_class)
        options = dict(
            load_options, dtype=dtype or "auto", trust_remote_code=False, use_safetensors=True
        )
        base, found = load_base(folder, head, options)
        # transformers would draw missing weights at random, and rewards would be noise.
        refuse_absent(found["missing_keys"], folder)
        kind = head.head_class
        kind.open(base, card, folder)
        model = cls(base, head, kind.restore(base, head, folder)).eval()
        return model if device is None else model.to(device)

    @classmethod
    def _from_adapter(
        cls, folder: Path, *, device: str | torch.device | None, **load_options: Any
    ) -> "RewardModel":
        from peft import PeftModel

        card = read_card(folder)
        find_start(folder)
        check_base(card, folder, card.base_model)
        device, load_options = placed(card.base_model, device, load_options)
        model = cls.from_base(card.base_model, card.head, **load_options)
        try:
            model.base = PeftModel.from_pretrained(model.base, str(folder))
        except KeyError as error:
            raise CheckpointError(
                f"The adapter in {folder} lacks the weight {error}; save it again with its head "
                "(peft: task_type='SEQ_CLS', modules_to_save=['score'])."
            ) from error
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"The adapter in {folder} cannot be loaded: {error}") from error
        model.merge_adapters()
        card.head.head_class.open(model.base, card, folder)
        if model.value_head is not None:
            model.value_head = card.head.head_class.restore(model.carrier, card.head, folder)
        model = model.eval()
        return model if device is None else model.to(device)

    def merge_adapters(self) -> None:
        """Fold LoRA adapters into the weights, so that a plain folder can be saved."""
        if hasattr(self.base, "merge_and_unload"):
            self.base = self.base.merge_and_unload()

    def save_pretrained(self, folder: str | Path, tokenizer: Any, card: CheckpointCard) -> None:
        """Write the folder whole or not at all; an older folder of that name is replaced.

        Adapters that were not merged (`merge_adapters`) are kept as such: an ordinary peft folder,
        with the head among its weights.

        Raises:
            OutputError: it cannot be made.
        """
        adapted = hasattr(self.base, "merge_and_unload")
        folder = Path(folder)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        except OSError as error:
            raise OutputError(
                f"The folder {folder} cannot be made: {reason(error)}; {remedy(error)}."
            ) from error
        try:
            if adapted:
                # The embeddings are the base's; to look for changes, peft would ask the hub.
                self.base.save_pretrained(temporary, save_embedding_layers=False)
            else:
                self.carrier.save_pretrained(temporary)
                self.head.check_saved(self.carrier, temporary, str(folder))
            save_tokenizer(tokenizer, temporary)
            if self.value_head is not None:
                save_own(self.value_head, temporary)
            write_card(temporary, self.head.note(card, tokenizer))
            temporary.chmod(0o755)
            replace_folder(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
