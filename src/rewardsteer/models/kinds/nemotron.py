"""NVIDIA's Nemotron-Reward models: causal language models whose reward is one logit."""

from typing import Any

from rewardsteer.data.template import Template
from rewardsteer.errors import CheckpointError
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.heads.layers import Layer
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.headed import load_headed
from rewardsteer.models.kinds.stacks import read_rows
from rewardsteer.models.scorer import Scorer

# In the order of transformers: a model with tied embeddings has no lm_head of its own.
_OUTPUTS = ("lm_head.weight", "model.embed_tokens.weight", "embed_out.weight")


class NemotronKind(Kind):
    """The logit of one vocabulary entry (0) at the last token of the closed text. The folder is
    that of any language model, so it is never recognised: it has to be asked for.

    Options:
        logit: id of the vocabulary entry.
    """

    summary = "causal language model whose reward is the logit of one token (Nemotron-Reward)"

    @classmethod
    def load(
        cls, folder: FolderDescription, *, template: Template | None, logit: int = 0, **options:
        Any,
    ) -> Scorer:
        name = next((one for one in _OUTPUTS if one in folder.tensors), None)
        if name is None or not folder.architecture.endswith("ForCausalLM"):
            raise CheckpointError(
                f"Expected a causal language model for the kind nemotron, got "
                f"{folder.architecture or 'no architecture'} in {folder.name}."
            )
        if folder.config.get("final_logit_softcapping") or folder.config.get("logit_scale"):
            raise CheckpointError(
                f"The logits of {folder.name} are scaled or capped by its configuration, which the "
                "kind nemotron does not do."
            )
        if not 0 <= logit < folder.tensors[name][0]:
            raise CheckpointError(
                f"Expected logit= below {folder.tensors[name][0]}, the size of the vocabulary of "
                f"{folder.name}; got {logit}."
            )
        row = read_rows(folder.path, name, logit, logit + 1)
        model = load_headed(
            folder, [Layer(row, None)],
            head_name="lm_head" if name.startswith("lm_head") else None, **options,
        )
        return Scorer(
            model, load_tokenizer(folder.path), template or Template(), **folder.identity
        )
