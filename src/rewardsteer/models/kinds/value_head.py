"""Backbones with one number per token: the heads of OpenRLHF, goal-conditioned-rm, GRM, Athene,
Starling, UltraRM, INF-ORM, Qwen2.5-Math-RM, OpenAssistant's Pythia, veRL and others.

The head is rebuilt from its weights and scored at the last token. OpenRLHF's mean and standard
deviation are applied where the configuration asks for it.
"""

import math
from typing import Any

import torch
from torch import Tensor

from rewardsteer.data.template import Template
from rewardsteer.errors import CheckpointError
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.headed import load_headed
from rewardsteer.models.kinds.pair_encoder import is_encoder
from rewardsteer.models.kinds.stacks import (
    combined,
    find_heads,
    only_head,
    read_layers,
    read_tensors,
)
from rewardsteer.models.kinds.whole_text import AppendedTokenScorer, MeanPooledScorer
from rewardsteer.models.limits import padding_id
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import TextScorer

# Of published models without a chat template.
_TEMPLATES = {
    # UltraRM
    "LlamaRewardModel": Template(
        kind="text", prompt="Human: {prompt}\nAssistant:", response=" {response}", answer="",
        turns={"system": "{content}\n", "user": "{content}",
               "assistant": "\nAssistant: {content}\nHuman: "}, append_eos=False,
    ),
    # Eurus-RM
    "EurusRewardModel": Template(
        kind="text", prompt="[INST] {prompt} [/INST]", response=" {response}", answer="",
        turns={"system": "{content}\n", "user": "{content}",
               "assistant": " [/INST] {content} [INST] "}, append_eos=False,
    ),
    # OpenAssistant's Pythia
    "GPTNeoXRewardModel": Template(
        kind="text", prompt="<|prompter|>{prompt}<|endoftext|><|assistant|>",
        response="{response}<|endoftext|>", answer="",
        turns={"system": "{content}\n", "user": "{content}",
               "assistant": "<|endoftext|><|assistant|>{content}<|endoftext|><|prompter|>"},
        append_eos=False,
    ),
    # beaver of safe-rlhf; its classes were renamed
    **dict.fromkeys(("LlamaModelForScore", "LlamaForScore"), Template(
        kind="text", prompt="BEGINNING OF CONVERSATION: USER: {prompt} ASSISTANT:",
        response="{response}", answer="",
        turns={"system": "{content}\n", "user": "{content}",
               "assistant": " ASSISTANT:{content}</s>USER: "}, append_eos=False,
    )),
}
# Athene scores a token that it appends: its tokenizer's classification token, else this one.
_ATHENE = ("AtheneForSequenceClassification", "CustomAutoModelForSequenceClassification")
_ATHENE_TOKEN = 128003


class ValueHeadKind(Kind):
    """A head with one output beside the backbone, linear or an MLP.

    Options:
        negate: flip the sign, for models whose high values mean bad (beaver cost models).
        reward_token: id of a token that is appended to the text and scored; None: as the kind of
            checkpoint says, mostly none.
    """

    summary = "one-number head of any published form on a decoder"

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """Whether the weights hold one head with one output, and it is not transformers' own
        classifier nor a process reward model."""
        if folder.has_card or folder.is_adapter:
            return False
        heads = [head for head in find_heads(folder) if head.outputs == 1]
        name = folder.architecture.lower()
        if len(heads) != 1 or "process" in name or "prm" in name:
            return False
        plain = folder.architecture.endswith("ForSequenceClassification")
        return not (plain and (heads[0].layers == ("score",) or is_encoder(folder)))

    @classmethod
    def load(
        cls, folder: FolderDescription, *, template: Template | None, negate: bool = False,
        reward_token: int | None = None, **options: Any,
    ) -> TextScorer:
        head = only_head(folder)
        scale, offset = _normaliser(folder)
        sign = -1.0 if negate else 1.0
        layers = combined(
            read_layers(folder, head), torch.tensor([sign * scale]), offset=sign * offset
        )
        model = load_headed(folder, layers, head_name=head.name, **options)
        tokenizer = load_tokenizer(folder.path)
        chats = bool(getattr(tokenizer, "chat_template", None))
        if template is None and not chats:
            template = _TEMPLATES.get(folder.architecture)
        # These follow transformers' own classifiers, which skip the padding token.
        skips = head.name == "score" and folder.architecture.endswith(
            ("ForSequenceClassification", "ForRewardModel")
        )
        pooled = _is_pooled(folder)
        scorer = Scorer(
            model, tokenizer, template or Template(), share_prompts=not pooled,
            unread_id=padding_id(model.config) if skips else None, **folder.identity,
        )
        if pooled:
            return MeanPooledScorer(scorer)
        token = _appended(folder, tokenizer) if reward_token is None else reward_token
        return scorer if token is None else AppendedTokenScorer(scorer, token)


def _is_pooled(folder: FolderDescription) -> bool:
    """Whether the head reads the mean over all tokens, which OpenAssistant's configuration says."""
    if folder.architecture != "GPTNeoXRewardModel":
        return False
    pooling = folder.config.get("pooling") or "last"
    if pooling not in ("mean", "last"):
        raise CheckpointError(
            f"Expected the pooling mean or last in config.json of {folder.name}, got {pooling!r}."
        )
    return bool(pooling == "mean")


def _normaliser(folder: FolderDescription) -> tuple[float, float]:
    """Scale and offset: reward = scale · output + offset."""
    config = folder.config
    if config.get("normalize_reward"):
        mean, deviation = config.get("mean"), config.get("std")
        if mean is None or deviation is None:
            raise CheckpointError(
                f"The configuration of {folder.name} asks for normalised rewards "
                "(normalize_reward), but has no mean and std."
            )
        return _standard(folder, _number(mean), _number(deviation))
    if config.get("do_normalize") and "normalizer.mean" in folder.tensors:
        found = read_tensors(folder.path, ["normalizer.mean", "normalizer.var"])
        return _standard(
            folder, _number(found["normalizer.mean"]), math.sqrt(_number(found["normalizer.var"]))
        )
    return 1.0, 0.0


def _standard(folder: FolderDescription, mean: float, deviation: float) -> tuple[float, float]:
    if not deviation > 0:
        raise CheckpointError(
            f"The rewards of {folder.name} are divided by a standard deviation of {deviation}; "
            "expected a positive one."
        )
    return 1 / deviation, -mean / deviation


def _number(value: Any) -> float:
    """A number that may be a list or tensor of one."""
    if isinstance(value, Tensor):
        return float(value.reshape(-1)[0])
    return float(value[0] if isinstance(value, list) else value)


def _appended(folder: FolderDescription, tokenizer: Any) -> int | None:
    token = folder.config.get("reward_token_id")
    if isinstance(token, int):
        return token
    if folder.architecture not in _ATHENE:
        return None
    return _ATHENE_TOKEN if tokenizer.cls_token_id is None else int(tokenizer.cls_token_id)
