"""PairRM (llm-blender/PairRM-hf, Better-PairRM): an encoder reads a prompt and two responses at
once, and a head compares their states (arXiv 2306.02561). Its Python code is not needed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DebertaV2Model

from rewardsteer.data.template import Template
from rewardsteer.errors import CheckpointError, DataError
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.parts import load_parts, no_template, own_options
from rewardsteer.models.kinds.stacks import read_tensors
from rewardsteer.models.pair_scorer import PairScorer

# Marks before the three parts, by their names in config.json.
_MARKS = {"source": "<|source|>", "cand1": "<|candidate1|>", "cand2": "<|candidate2|>"}
# A conversation of several turns; the spelling is that of the training.
_INSTRUCTION = (
    "Finish the following coversation in each i-th turn by filling in <Response i> with your "
    "response."
)
_LAYERS = ("head_layer.1", "head_layer.4")


class PairRm(PairScorer, Kind):
    """σ(value of the first response − value of the second). A response's value is a head on the
    states of the mark before the prompt and of the mark before the response.

    Args:
        tokenizer: with the marks as tokens.
        head: ``[R, 2D]`` to ``[R, K]``; the mean of the K differences counts.
        marks: ids of the marks before the prompt and the two responses.
        source_length, candidate_length: most tokens of the prompt, and of a response where the
            prompt is of that length; a shorter prompt leaves its tokens to the responses.
            Better-PairRM has 2030 and 670.
        options: see `PairScorer`.
    """

    kind = "pairrm"
    summary = "DeBERTa that compares two responses (PairRM-hf)"
    compares = True
    activation = "sigmoid"
    noted = ("activation", "source_length", "candidate_length")

    def __init__(
        self, model: Any, tokenizer: Any, head: nn.Module, marks: Sequence[int], *,
        source_length: int = 1224, candidate_length: int = 412, **options: Any,
    ) -> None:
        super().__init__(model, tokenizer, **options)
        self.head, self.marks = head, list(marks)
        self.source_length, self.candidate_length = source_length, candidate_length

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """The head of a pair, or the configuration of LLM-Blender's own program, which `load`
        refuses."""
        return _is_blender(folder) or (
            not folder.has_card and folder.config.get("model_type") == "deberta-v2"
            and all(folder.shape(f"{name}.weight") is not None for name in _LAYERS)
        )

    @classmethod
    def load(
        cls, folder: FolderDescription, *, template: Template | None, **options: Any
    ) -> "PairRm":
        no_template(template, cls.kind)
        if _is_blender(folder):
            raise CheckpointError(
                f"The folder {folder.name} is PairRM in the form of the program LLM-Blender, which "
                "does not hold the encoder's configuration; load the form for transformers, "
                "llm-blender/PairRM-hf."
            )
        given = [folder.config.get(f"{name}_prefix_id") for name in _MARKS]
        marks = [one for one in given if isinstance(one, int)]
        if len(marks) != len(_MARKS):
            raise CheckpointError(
                f"Expected source_prefix_id, cand1_prefix_id and cand2_prefix_id in config.json of "
                f"{folder.name}, as PairRM has them; copy the whole folder again."
            )
        own, options = own_options(cls, options)
        model, tokenizer, parts = load_parts(
            DebertaV2Model, folder, kept=["head_layer."],
            key_mapping={r"^pretrained_model\.": ""}, **options,
        )
        head = _head(folder).to(model.device)
        return cls(model, tokenizer, head, marks, **parts, **own)

    def encode_pair(self, turns: Sequence[str], first: str, second: str) -> list[int]:
        """Prompt and responses, each tokenized by itself and with its mark before it. The published
        code cuts what is too long; here it is refused, because a cut response is another one."""
        source, texts = turns[0], [first, second]
        if len(turns) > 1:
            source = _INSTRUCTION + "\n".join(
                f"USER: {text}\nAssistant: <Response {number}>"
                for number, text in enumerate(turns[::2], start=1)
            )
            texts = [
                "\n".join(f"<Response {number}>: {one}"
                          for number, one in enumerate([*turns[1::2], text], start=1))
                for text in texts
            ]
        parts = [
            list(self.tokenizer(mark + text)["input_ids"])
            for mark, text in zip(_MARKS.values(), [source, *texts], strict=True)
        ]
        ids = [token for part in parts for token in part]
        if any(ids.count(mark) != 1 for mark in self.marks):
            raise DataError(
                f"expected each of the marks {', '.join(_MARKS.values())} once; take them out of "
                "the prompt and the responses."
            )
        room = (self.source_length + 2 * self.candidate_length - len(parts[0])) // 2
        longest = max(map(len, parts[1:]))
        if len(parts[0]) > self.source_length or longest > room:
            raise DataError(
                f"the prompt has {len(parts[0])} tokens and the longer response {longest}, but the "
                f"model was trained on at most {self.source_length} and, beside such a prompt, "
                f"{room}; shorten them, or pass source_length= and candidate_length=."
            )
        return ids

    def first_wins(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Probabilities of the loss that it was trained with."""
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        # The marks stand in this order in every row, once each.
        source, first, second = (hidden[ids == mark] for mark in self.marks)
        values = [self.head(torch.cat([source, one], dim=-1)) for one in (first, second)]
        margins: Tensor = (values[0] - values[1]).mean(dim=-1)
        # On the CPU, since not every device has float64; float32 would round to 1 from 17 on.
        return margins.cpu().double().sigmoid()


def _is_blender(folder: FolderDescription) -> bool:
    return folder.config.get("ranker_type") == "pairranker"


def _head(folder: FolderDescription) -> nn.Module:
    names = [f"{layer}.{part}" for layer in _LAYERS for part in ("weight", "bias")]
    tensors = read_tensors(folder.path, names)
    layers = []
    for name in _LAYERS:
        weight = tensors[f"{name}.weight"]
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": tensors[f"{name}.bias"]})
        layers.append(layer)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1]).requires_grad_(False).eval()
