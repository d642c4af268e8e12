"""Upload of checkpoints to the Hugging Face hub: only model files, private by default."""

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rewardsteer.errors import CheckpointError, ConfigError, OutputError
from rewardsteer.models.checkpoint import read_card

# Files of a model folder that are published. Pickles (*.bin, *.pt) and data rows (*.jsonl,
# *.parquet) are not.
PARTS = (
    "README.md", "rewardsteer.json", "*.safetensors", "*.safetensors.index.json", "config.json",
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model",
    "spiece.model", "chat_template.jinja", "goal_states.json",
)


@dataclass(frozen=True)
class Contents:
    """Names of a folder's files: those that are published and those left out."""

    published: list[str]
    left_out: list[str]


def contents(folder: Path) -> Contents:
    """The files of a checkpoint folder that would be published.

    Raises:
        CheckpointError: the folder is not a reward model, or has no weights that can be published.
    """
    read_card(folder)
    names = sorted(path.name for path in folder.iterdir())
    published = [
        name for name in names
        if (folder / name).is_file() and any(fnmatch(name, part) for part in PARTS)
    ]
    if not any(name.endswith(".safetensors") for name in published):
        raise CheckpointError(
            f"Expected weights (*.safetensors) in {folder}, found none; other forms are not "
            "published."
        )
    return Contents(published, [name for name in names if name not in published])


def push(
    folder: Path, repository: str, *, public: bool = False, message: str = "Add the reward model",
    api: Any = None,
) -> str:
    """Upload a checkpoint folder to the hub in one commit and return its address.

    The token comes from the environment (``HF_TOKEN``) or from ``hf auth login``, never from an
    argument. ``HF_ENDPOINT`` names another hub.

    Args:
        folder: the checkpoint.
        repository: ``owner/name``; created when missing.
        public: make it public. Without this, an existing public repository is refused.
        message: of the commit.
        api: a `huggingface_hub.HfApi`; None: the default one.

    Raises:
        CheckpointError: the folder is not a reward model.
        ConfigError: a malformed name, or a public repository without ``public``.
        OutputError: the hub refused, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    published = contents(folder).published
    api = HfApi() if api is None else api
    # The base class of the hub's errors depends on its HTTP library, which differs by version.
    http_error = HfHubHTTPError.__mro__[1]
    try:
        address = str(api.create_repo(repository, private=not public, exist_ok=True))
        private = public or api.model_info(repository).private
        if private:
            api.upload_folder(
                repo_id=repository, folder_path=str(folder), allow_patterns=published,
                commit_message=message,
            )
    except HFValidationError as error:
        raise ConfigError(f"{repository!r} is no name of a repository: {error}") from error
    except (OSError, http_error) as error:
        raise OutputError(f"The hub did not take {folder}: {_first_line(error)}") from error
    if not private:
        raise ConfigError(
            f"The repository {repository} is public; pass public=True (--public) to publish "
            "there, or choose another."
        )
    return address


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
