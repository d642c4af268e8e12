"""The files beside the weights: ``rewardsteer.json`` (the card) and the tokenizer.

A checkpoint is an ordinary Hugging Face folder. The card adds what transformers has no place for:
the head, the objective, the response template and where the data came from.
"""

import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rewardsteer import __version__
from rewardsteer.configuration import Config
from rewardsteer.data.template import stored_template
from rewardsteer.errors import CheckpointError
from rewardsteer.faults import checked
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.places import check_place, locate, no_model, nowhere
from rewardsteer.objectives import LOG_PROBABILITY
from rewardsteer.outputs import read_json, write_json

CARD = "rewardsteer.json"
VALUE_HEAD = "value_head.safetensors"
GOAL_STATES = "goal_states.safetensors"
# Of a reward model kept as an adapter (peft's names).
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

# Files that tokenizers are loaded from.
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "vocab.txt")
# Padding tokens that well-known tokenizers carry without naming them as such.
_KNOWN_PADDING = ("<|finetune_right_pad_id|>", "<|padding|>", "<pad>", "[PAD]", "<|pad|>")


class MetricResult(Config):
    """A figure measured on the model, for its model card.

    Attributes:
        name: what was measured: ``accuracy``, ``auroc``, …
        on: the data it was measured on.
        value: the figure; ``low`` and ``high`` its 95 % interval, None when unknown.
        count: rows it was measured on; 0 when unknown.
    """

    name: str
    on: str
    value: float
    low: float | None = None
    high: float | None = None
    count: int = 0


class CheckpointCard(Config):
    """Contents of ``rewardsteer.json``.

    Attributes:
        head: the head on the backbone.
        objective: names of the objectives it was trained with, joined with ``+``; "" before any
            training.
        reading: what the head's outputs mean: ``value``, rewards; ``log_probability``,
            log-probabilities of tokens, whose sum over a response is its reward; ``step_logit``,
            log-odds that the step that ends with a token is correct. "" in older cards, where the
            objective decides.
        template: response template of training, as plain values; scoring uses the same one.
        base_model: what the weights started from.
        base_on_hub: whether that is a name on the Hugging Face hub; False for a local folder.
        base_licence: licence that the base model's own card names; "" when unknown.
        base_fingerprint: of its weights, for a reward model kept as an adapter; "" when unknown.
        data_fingerprint: fingerprint of the training data; "" when unknown.
        data: names of its ``sources`` and its rows by split; empty when unknown.
        metrics: what was measured on the model.
        seed: seed of training.
        tokens: number of rows of a vocabulary head, from the first, whose tokens can be generated;
            0 in older cards, where the tokenizer decides.
        goal_states: file names of goal states beside the weights.
        versions: versions of the libraries that wrote the folder.
    """

    head: HeadConfig
    objective: str = ""
    reading: Literal["", "value", "log_probability", "step_logit"] = ""
    template: dict[str, Any] = Field(default_factory=dict)
    base_model: str = ""
    base_on_hub: bool = False
    base_licence: str = ""
    base_fingerprint: str = ""
    data_fingerprint: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    metrics: list[MetricResult] = Field(default_factory=list)
    seed: int = 0
    tokens: int = Field(default=0, ge=0)
    goal_states: list[str] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=lambda: library_versions())

    @property
    def reads_log_probabilities(self) -> bool:
        """Whether rewards are sums of log-probabilities."""
        return is_log_probability(self.reading, self.objective)


def is_log_probability(reading: str, objective: str) -> bool:
    """Whether rewards are sums of log-probabilities, by these fields of `CheckpointCard`."""
    if reading:
        return reading == "log_probability"
    return not LOG_PROBABILITY.isdisjoint(objective.split("+"))


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide what a checkpoint computes."""
    names = ("torch", "transformers", "tokenizers", "peft", "accelerate", "datasets")
    return {"rewardsteer": __version__} | {name: importlib.metadata.version(name) for name in names}


def write_card(folder: Path, card: CheckpointCard) -> None:
    """Write ``rewardsteer.json`` and, unless the user has written one, the model card."""
    from rewardsteer.models.model_card import write_model_card

    write_json(folder / CARD, card.model_dump(mode="json"))
    write_model_card(folder, card)


def read_card(folder: Path) -> CheckpointCard:
    """The card of a folder or hub name. A folder without one gets the card of a plain scalar reward
    model if it is a one-label classifier, or an adapter of one.

    Raises:
        CheckpointError: no such folder, a damaged card, or a folder without a card that is no
            one-label sequence classifier.
    """
    folder = locate(folder)
    if (folder / CARD).exists():
        try:
            card = checked(CheckpointCard, read_json(folder / CARD))
            stored_template(card.template)
            return card
        except ValueError as error:
            raise CheckpointError(f"The card {folder / CARD} is damaged: {error}") from error
    if (folder / ADAPTER_CONFIG).exists():
        return _adapter_card(folder)
    if not (folder / "config.json").exists():
        check_place(folder)
        raise CheckpointError(no_model(folder))
    try:
        config = read_json(folder / "config.json")
        architectures = [str(name) for name in config.get("architectures") or ["none"]]
        labels = config.get("num_labels", len(config.get("id2label", {0: 0, 1: 1})))
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"The file {folder / 'config.json'} is damaged: {error}") from error
    if architectures[0].endswith("ForSequenceClassification") and labels == 1:
        return CheckpointCard(head=HeadConfig(), base_model=str(folder))
    raise CheckpointError(
        f"Expected a reward model at {folder}: a folder with {CARD} or a sequence classifier with "
        f"one label; got {architectures[0]} without a card. Train one with 'rewardsteer train', or "
        "make one of a published checkpoint with 'rewardsteer import'."
    )


def _adapter_card(folder: Path) -> CheckpointCard:
    """Of an adapter that peft or TRL left: a reward model where its task is classification."""
    config = read_json(folder / ADAPTER_CONFIG)
    if config.get("task_type") != "SEQ_CLS":
        raise CheckpointError(
            f"Expected a reward model at {folder}; its adapter_config.json is of the task "
            f"{config.get('task_type')}, not SEQ_CLS, so it holds no reward head."
        )
    base = config.get("base_model_name_or_path") or ""
    return CheckpointCard(head=HeadConfig(), base_model=base)


def fingerprint(folder: Path) -> str:
    """SHA-256 over the weight files of a model folder, first 16 hexadecimal digits.

    Goal states do not count: they name the weights that they belong to.
    """
    folder, digest = locate(folder), hashlib.sha256()
    files = sorted(file for file in folder.glob("*.safetensors") if file.name != GOAL_STATES)
    if not files:
        raise CheckpointError(f"Expected weights (*.safetensors) in {folder}, found none.")
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def load_tokenizer(source: str | Path, *, own_code: bool = False) -> Any:
    """The tokenizer of a model folder or hub name, as saved; ``own_code`` lets Python code from the
    folder run.

    Raises:
        CheckpointError: there is none.
    """
    from transformers import AutoTokenizer

    check_place(source)
    folder = Path(source)
    adapter = folder / ADAPTER_CONFIG
    if adapter.exists() and not (folder / "tokenizer_config.json").exists():
        return load_tokenizer(read_json(adapter).get("base_model_name_or_path") or "")
    try:
        return AutoTokenizer.from_pretrained(str(source), trust_remote_code=own_code)
    except Exception as error:  # the Rust library raises plain exceptions, its callers many kinds
        if not folder.is_dir():
            raise CheckpointError(nowhere(source, error)) from error
        parts = ("config.json", "tokenizer_config.json", "tokenizer.json")
        if not any((folder / name).exists() for name in parts):
            raise CheckpointError(no_model(source)) from error
        if not any((folder / name).exists() for name in _TOKENIZERS):
            raise CheckpointError(
                f"Expected a tokenizer in {source}, it holds none of {', '.join(_TOKENIZERS)}; "
                "copy those of the model that it was made of."
            ) from error
        raise CheckpointError(
            f"No tokenizer can be loaded from {source}: {' '.join(str(error).split())}"
        ) from error


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer so that transformers 4 reads it too.

    transformers 5 names a class and a form of special tokens that version 4 does not know; both
    versions know the ones put in their place.
    """
    tokenizer.save_pretrained(folder)
    place = folder / "tokenizer_config.json"
    config = read_json(place)
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    if isinstance(tokenizer.chat_template, str):
        # Earlier versions do not read chat_template.jinja; later ones prefer it.
        config["chat_template"] = tokenizer.chat_template
    write_json(place, config)


def ensure_padding_token(tokenizer: Any, model: Any = None, *, grow: bool = True) -> None:
    """Give the tokenizer a padding token that is not end-of-text, adding one if it has none.

    Plain ``AutoModelForSequenceClassification`` finds a row's last token by comparing ids with
    ``pad_token_id``: with pad = eos it would take the reward one token too early. With a padding
    token of its own, the checkpoint gives the same rewards there as here.

    Args:
        tokenizer: changed in place.
        model: gets an embedding for an added token and the id in its configuration; None: no model.
        grow: False keeps the embeddings as they are: no token is added, and end-of-text pads if
            there is no other.
    """
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        vocabulary = tokenizer.get_vocab()
        known = [token for token in _KNOWN_PADDING if token in vocabulary]
        known = [token for token in known if token != tokenizer.eos_token]
        added = "<|pad|>" if grow else tokenizer.eos_token
        tokenizer.add_special_tokens({"pad_token": known[0] if known else added})
    if model is not None:
        if grow and model.get_input_embeddings().num_embeddings < len(tokenizer):
            model.resize_token_embeddings(len(tokenizer))
        model.config.pad_token_id = tokenizer.pad_token_id
