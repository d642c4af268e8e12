"""Finding a model: a folder, or a name on the Hugging Face hub."""

import re
from pathlib import Path

from rewardsteer.errors import CheckpointError, ConfigError

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# Files of a reward model; never a pickle.
_PARTS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md")


def locate(
    source: str | Path, revision: str | None = None, *, code: bool = False, subfolder: str = ""
) -> Path:
    """The folder of a reward model; one that is only named is fetched from the hub, or found in its
    cache. ``revision`` is a branch, tag or commit there; ``code`` fetches Python files too. The
    model is in ``subfolder`` where one is named.

    Raises:
        CheckpointError: there is no such folder or name, or it is a file.
        ConfigError: a ``revision`` of a folder.
    """
    path = Path(source)
    check_place(source)
    if path.is_dir() and revision is not None:
        raise ConfigError(
            f"revision={revision} is of a model on the Hugging Face hub, and {source} is a folder, "
            "which has none; leave revision out, or give the model's name on the hub."
        )
    if not path.is_dir():
        path = _fetched(source, revision, code=code, subfolder=subfolder) / subfolder
    elif subfolder:
        path /= subfolder
    if not path.is_dir():
        raise CheckpointError(f"Expected a model folder at {path}, there is none.")
    return path


def _fetched(
    source: str | Path, revision: str | None, *, code: bool, subfolder: str
) -> Path:
    from huggingface_hub import snapshot_download

    within = f"{subfolder.strip('/')}/" if subfolder else ""
    parts = [*_PARTS, *(["*.py"] if code else [])]
    try:
        return Path(snapshot_download(
            str(source), revision=revision, allow_patterns=[within + part for part in parts]
        ))
    except Exception as error:  # offline, unknown, gated: the library and its clients raise dozens
        raise CheckpointError(nowhere(source, error)) from error


def check_place(source: str | Path) -> None:
    """Refuse what is neither a folder nor can be a name on the hub; needs no network.

    Raises:
        CheckpointError: says what was expected.
    """
    path, name = Path(source), str(source)
    if not name.strip():
        raise CheckpointError("Expected the folder or the name of a model, got an empty text.")
    ends = {one.suffix for one in path.iterdir()} if path.is_dir() else {path.suffix}
    if ".gguf" in ends and ".safetensors" not in ends:
        raise CheckpointError(
            f"{source} is a GGUF file, a format for llama.cpp; expected a folder with config.json "
            "and safetensors. transformers converts language models in it, but no reward heads "
            "(it would draw a classifier's at random): "
            "AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=NAME).save_pretrained(OUT)."
        )
    if path.is_dir():
        return
    if path.is_file():
        raise CheckpointError(f"Expected a model folder, {source} is a file.")
    if not _HUB_NAME.fullmatch(name):
        raise CheckpointError(f"Expected a model folder at {source}, there is none.")


def no_model(folder: str | Path) -> str:
    """The sentence for a folder without ``config.json``; a run's folder holds one beneath it."""
    within = Path(folder) / "model"
    found = f"; {within} holds one" if (within / "config.json").exists() else ""
    return f"Expected a model folder at {folder}, it holds no config.json{found}."


def refuse_no_model(source: str | Path) -> None:
    """Raise `CheckpointError` for a folder that holds neither a model nor an adapter."""
    folder = Path(source)
    parts = ("config.json", "adapter_config.json")
    if folder.is_dir() and not any((folder / name).exists() for name in parts):
        raise CheckpointError(no_model(source))


def nowhere(source: str | Path, error: Exception) -> str:
    """The sentence for a name under which nothing is found."""
    reason = str(error).strip().splitlines()[:1]
    return (
        f"Expected a model folder at {source}, there is none; nor can a model of that name be had "
        f"from the Hugging Face hub or its cache on this machine ({type(error).__name__}: "
        f"{reason[0] if reason else 'no reason given'})."
    )
