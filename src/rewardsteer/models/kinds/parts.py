"""Loading of published models, and helpers for their fixed forms."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rewardsteer.data.template import Template
from rewardsteer.data.text_ids import bare_ids
from rewardsteer.errors import CheckpointError, ConfigError, DataError, RewardsteerError
from rewardsteer.models.attention import with_caps_of
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.heads.layers import WideLinear
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.loading import refuse_absent, refuse_pickles
from rewardsteer.models.placement import placed, put_beside
from rewardsteer.records import Prompt


def load_parts(
    auto_class: Any, folder: FolderDescription, *, device: Any, dtype: torch.dtype | None,
    kept: Sequence[str] = (), own_code: bool = False, **options: Any,
) -> tuple[Any, Any, dict[str, Any]]:
    """The model of a folder, its tokenizer, and name and fingerprint as keywords of a scorer.

    Args:
        auto_class: transformers' class that loads it.
        device, dtype: as in `kinds.load_scorer`.
        kept: beginnings of names of weights that the class does not know and the kind reads itself.
        own_code: let Python code from the folder run.
        options: passed on to ``from_pretrained``.

    Raises:
        CheckpointError: it cannot be loaded, or lacks weights that would be drawn at random.
    """
    refuse_pickles(folder.path)
    chosen, options = placed(folder.path, device, with_caps_of(str(folder.path), options))
    try:
        model, found = auto_class.from_pretrained(
            str(folder.path), dtype=dtype or "auto", trust_remote_code=own_code,
            use_safetensors=True, output_loading_info=True, **options,
        )
    except Exception as error:  # damaged files and code of others raise dozens of unrelated kinds
        raise CheckpointError(
            f"The model {folder.name} cannot be loaded{' by its own code' if own_code else ''} "
            f"({type(error).__name__}: {error})."
        ) from error
    refuse_absent(found["missing_keys"], folder.name)
    lost = [name for name in sorted(found["unexpected_keys"]) if not name.startswith(tuple(kept))]
    if lost:
        raise CheckpointError(
            f"The weights in {folder.name} hold {', '.join(lost[:3])}"
            f"{' and more' if len(lost) > 3 else ''}, which this kind of reward model does not "
            "use; name the right kind."
        )
    model = model.eval() if chosen is None else model.eval().to(chosen)
    return model, load_tokenizer(folder.path, own_code=own_code), folder.identity


def own_options(
    scorer: type, options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options that a scorer's class takes, and the rest, which is ``from_pretrained``'s."""
    names = {
        name for one in scorer.__mro__ if "__init__" in vars(one)
        for name, about in inspect.signature(one).parameters.items()
        if about.kind is inspect.Parameter.KEYWORD_ONLY
    }
    own = {name: value for name, value in options.items() if name in names}
    return own, {name: value for name, value in options.items() if name not in names}


def no_template(template: Template | None, kind: str) -> None:
    """Refuse a template for a kind whose form is fixed.

    Raises:
        ConfigError: there is one.
    """
    if template is not None:
        raise ConfigError(
            f"A {kind} model is read in the form it was published with; leave the template out."
        )


def require_chat_template(
    tokenizer: Any, kind: str, name: str, error: type[RewardsteerError] = ConfigError
) -> None:
    """Raise an error where a kind is read in a chat template, and the tokenizer has none."""
    if not getattr(tokenizer, "chat_template", None):
        raise error(
            f"{name or 'The reward model'} has no chat template in its tokenizer, which a {kind} "
            "model is read with; copy tokenizer_config.json and chat_template.jinja again."
        )


def marked_columns(ids: Sequence[int], mark_id: int, mark: str, steps: int) -> list[int]:
    """Columns of the mark behind each of so many steps.

    Raises:
        DataError: there are more or fewer marks.
    """
    columns = [at for at, one in enumerate(ids) if one == mark_id]
    if len(columns) != steps:
        raise DataError(
            f"expected {steps} marks {mark!r}, one behind each step, and the text holds "
            f"{len(columns)}; take it out of the prompt and the steps."
        )
    return columns


def question_of(prompt: Prompt, kind: str) -> str:
    """The text of a prompt for a model that was trained on plain questions.

    Raises:
        DataError: a conversation of more than one user turn.
    """
    if isinstance(prompt, str):
        return prompt
    turns = [message.role for message in prompt]
    if turns == ["user"]:
        return prompt[0].content
    raise DataError(
        f"a {kind} model reads one question as text; got a conversation with the turns "
        f"{', '.join(turns) or 'none'}. Give the last question alone."
    )


def single_id(tokenizer: Any, token: str, what: str) -> int:
    """The id of a token given as text or as it stands in the vocabulary.

    Raises:
        ConfigError: the tokenizer writes it with several tokens, or with none that it knows.
    """
    ids = bare_ids(token, tokenizer)
    if len(ids) > 1 and tokenizer.convert_ids_to_tokens(ids[0]) == "▁":
        ids = ids[1:]  # SentencePiece's mark of a word's beginning
    if len(ids) != 1 and token in tokenizer.get_vocab():
        ids = [tokenizer.get_vocab()[token]]
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ConfigError(
            f"{what} must be one token of the model's tokenizer, which writes {token!r} with "
            f"{len(ids) if len(ids) > 1 else 'none that it knows'}; name another."
        )
    return int(ids[0])


def replace_outputs(model: Any, change: Callable[[Tensor], Tensor]) -> None:
    """Replace a causal language model's output layer, in place. Scales and caps that its
    architecture applies after the layer stay as they are.

    Args:
        model: the language model.
        change: makes the rows of the new output layer, weight ``[K, D]`` and bias ``[K]``, of the
            old ones ``[V, D]`` and ``[V]``.
    """
    layer = model.get_output_embeddings()
    weight, bias = change(layer.weight.detach()).clone(), getattr(layer, "bias", None)
    small = WideLinear(weight.shape[1], len(weight), bias=bias is not None)
    small.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        small.bias = nn.Parameter(change(bias.detach()).clone(), requires_grad=False)
    model.set_output_embeddings(put_beside(layer, small))
