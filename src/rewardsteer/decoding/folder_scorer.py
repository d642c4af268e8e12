"""A saved reward model without its weights."""

import functools
from pathlib import Path
from typing import Any

from rewardsteer.data.template import Template, resolve, stored_template
from rewardsteer.decoding.policy import model_bounds
from rewardsteer.errors import CheckpointError
from rewardsteer.models.causal import parameter_count
from rewardsteer.models.checkpoint import fingerprint, load_tokenizer, read_card
from rewardsteer.models.places import locate


class FolderScorer:
    """A saved reward model without its weights: the attributes that methods and engines need
    before, or without, running it.

    Args:
        template: how prompts and responses are written; None: as its card says.

    Raises:
        CheckpointError: missing or damaged folder.
    """

    def __init__(self, folder: Path, template: Template | None = None) -> None:
        self.folder, self.name, self._template = locate(folder), str(folder), template
        self.card = read_card(self.folder)
        self.head_kind, self.objective = self.card.head.kind, self.card.objective
        self.gives_next_token = self.card.head.head_class.gives_next_token
        self.reading = self.card.reading

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that it was trained with."""
        return load_tokenizer(self.folder)

    @functools.cached_property
    def template(self) -> Template:
        """How prompts and responses are written, its kind resolved."""
        return resolve(self._template or stored_template(self.card.template), self.tokenizer)

    @functools.cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.folder)

    @functools.cached_property
    def _bounds(self) -> tuple[int | None, int]:
        # An adapter has its base's.
        known = (self.folder / "config.json").exists()
        return model_bounds(self.folder) if known else (None, len(self.tokenizer))

    @property
    def hidden_size(self) -> int:
        """Numbers in a hidden state."""
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(str(self.folder), trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"The model {self.name} cannot be loaded: {error}") from error
        return int(config.get_text_config(decoder=True).hidden_size)

    @property
    def position_limit(self) -> int | None:
        """Longest row that it reads; None: it has no limit."""
        return self._bounds[0]

    @property
    def vocabulary_size(self) -> int:
        return min(self._bounds[1], len(self.tokenizer))

    def parameter_count(self) -> int:
        """Number of weights that a token passes: of an adapter those of its base, without its own.
        """
        known = (self.folder / "config.json").exists()
        return parameter_count(self.folder if known else self.card.base_model)
