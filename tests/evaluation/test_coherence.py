"""Coherence by a stand-in for sentence-transformers, which is optional."""

import sys
from types import ModuleType

import numpy as np
import pytest

from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.evaluation.coherence import Coherence
from rewardsteer.records import Generation


class LetterCounts:
    """Embeds a text by its counts of a, b and c."""

    def __init__(self, model, device):
        if model == "missing":
            raise OSError("no such folder")
        self.device = device

    def encode(self, texts, *, normalize_embeddings, show_progress_bar):
        assert normalize_embeddings
        assert not show_progress_bar
        rows = np.array([[text.count(letter) for letter in "abc"] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def embeddings(monkeypatch):
    package = ModuleType("sentence_transformers")
    package.SentenceTransformer = LetterCounts
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)


def test_cosine_of_prompt_and_completion(embeddings):
    metric = Coherence("letters")
    def made(completion):
        return metric(Generation(id="1", prompt="aab", completion=completion, method="none"))

    assert made("baa") == pytest.approx(1)
    assert made("cc") == pytest.approx(0)
    assert made("bcc") == pytest.approx(1 / 5)


def test_what_is_missing_is_named(embeddings, monkeypatch):
    with pytest.raises(CheckpointError, match="no such folder"):
        Coherence("missing")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"rewardsteer\[coherence\]"):
        Coherence("letters")
