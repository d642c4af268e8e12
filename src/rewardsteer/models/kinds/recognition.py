"""Recognition of a reward model's kind."""

from pathlib import Path

from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.models.checkpoint import CARD
from rewardsteer.models.kinds import KINDS
from rewardsteer.models.kinds.custom_code import code_class, code_sentence
from rewardsteer.models.kinds.folder import FolderDescription, describe_folder
from rewardsteer.models.kinds.stacks import find_heads
from rewardsteer.models.loading import refuse_pickles
from rewardsteer.models.places import check_place, locate, no_model


def find_kind(
    name_or_path: str | Path, *, kind: str | None = None, revision: str | None = None,
    trust_remote_code: bool = False, subfolder: str = "",
) -> tuple[str, FolderDescription]:
    """The name of a model's kind and what its folder holds; loads no weights.

    Raises:
        CheckpointError, ConfigError: see `rewardsteer.models.kinds.load_scorer`.
    """
    name = str(name_or_path)
    if kind is None:
        kind = next((one for one in KINDS.names() if KINDS.get(one).recognises_name(name)), None)
    if kind is not None and not KINDS.get(kind).in_folder:
        if revision is not None or subfolder:
            raise ConfigError(
                f"revision and subfolder are of models on the Hugging Face hub, and {name} is an "
                f"address for the kind {kind}; leave them out."
            )
        return kind, FolderDescription(name, Path(name), trusted=trust_remote_code)
    place = locate(name_or_path, revision, code=trust_remote_code, subfolder=subfolder)
    folder = describe_folder(
        f"{name}/{subfolder}" if subfolder else name, place, trusted=trust_remote_code
    )
    return kind or recognise(folder), folder


def recognise(folder: FolderDescription) -> str:
    """The name of the one kind that recognises a folder.

    Raises:
        CheckpointError: none does, or several do; says what was seen and what would work.
    """
    found = [name for name in KINDS.names() if KINDS.get(name).recognises(folder)]
    if len(found) == 1:
        return found[0]
    if not found and folder.trusted and code_class(folder) is not None:
        return "custom_code"
    if found:
        raise CheckpointError(
            f"The reward model {folder.name} could be of the kinds {' and '.join(found)}; say "
            "which with kind= (--kind)."
        )
    raise CheckpointError(_unknown(folder))


def _unknown(folder: FolderDescription) -> str:
    if not folder.config:
        check_place(folder.path)
        return no_model(folder.name)
    refuse_pickles(folder.path)
    if code_class(folder) is not None:
        return (
            f"{code_sentence(folder)}, and its head cannot be rebuilt from the weights; if you "
            "trust the code, pass trust_remote_code=True, else choose another reward model."
        )
    if folder.architecture.endswith("ForCausalLM") and not find_heads(folder):
        return (
            f"Expected a reward model at {folder.name}, got {folder.architecture} without a card: "
            "the folder of a causal language model does not say whether its logits are rewards. "
            "Pass kind='farma' (--kind) for a checkpoint of FaRMA, kind='nemotron' for a "
            "Nemotron-Reward model, kind='math_shepherd', 'rlhflow_prm' or 'easy_to_hard' for a "
            "process reward model, kind='implicit' with reference= for a DPO policy, "
            "kind='rlhflow_pair' for RLHFlow's pair preference model, or train one with "
            "'rewardsteer train'."
        )
    heads = sorted(
        f"{name} {list(shape)}" for name, shape in folder.tensors.items() if _is_outside(name)
    )
    seen = f" ({', '.join(heads[:4])})" if heads else ""
    return (
        f"Expected a reward model at {folder.name}: a folder with {CARD}, a sequence classifier "
        f"with one label, or another of the kinds {', '.join(KINDS.names())}; got "
        f"{folder.architecture or 'no architecture'}{seen} without a card. Say which kind it is "
        "with kind= (--kind), or train one with 'rewardsteer train'."
    )


def _is_outside(name: str) -> bool:
    """Whether a weight belongs to a head and not to the layers of the backbone."""
    backbone = ("model.", "transformer.", "gpt_neox.", "layers.", "embed_tokens.", "h.", "norm.")
    return not name.startswith(backbone)
