"""Coherence of prompt and response, by sentence embeddings."""

from typing import Any

from rewardsteer.devices import AUTO, choose_device
from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.records import Generation


class Coherence:
    """Cosine between the sentence embeddings of prompt and completion, in [-1, 1].

    Args:
        model: a sentence-transformers model, folder or hub name.
        device: see `choose_device`.

    Raises:
        ConfigError: the optional package sentence-transformers is not installed.
        CheckpointError: the model cannot be loaded.
    """

    def __init__(self, model: str, *, device: str = AUTO) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ConfigError(
                "Coherence needs the package sentence-transformers, which is not installed; run "
                "pip install 'rewardsteer[coherence]', or leave coherence out."
            ) from error
        try:
            self._model: Any = SentenceTransformer(model, device=str(choose_device(device)))
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"The sentence-embedding model {model} cannot be loaded: {error}"
            ) from error

    def __call__(self, generation: Generation) -> float:
        """The cosine of one generation."""
        prompt, completion = self._model.encode(
            [generation.prompt, generation.completion], normalize_embeddings=True,
            show_progress_bar=False,
        )
        return float(prompt @ completion)
