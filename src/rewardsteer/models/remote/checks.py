"""Checks of what a reward server answers, among them with three short rows whether it applies an
activation to rewards."""

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from rewardsteer.errors import ConfigError, DataError, MismatchError
from rewardsteer.models.remote.rows import Rows

Activation = Literal["auto", "none", "sigmoid"]

# Any texts will do, as long as their rewards differ.
PROBE = Rows(["What is 2+2?"] * 3, ["4", "5", "I will not say."])
_CLOSE, _CLOSE_SUM = 1e-6, 1e-4
# No reward model has so many outputs, no language model states of fewer numbers.
_STATE = 256
_SHOWN = 100  # characters of an answer that cannot be read


def find_activation(
    url: str, ask: Callable[[bool], np.ndarray], *, asks_activation: bool, label: int | None,
) -> Literal["none"]:
    """Check that a server gives one raw reward per row.

    Args:
        url: its address, for messages.
        ask: the numbers ``[3, K]`` of `PROBE`, with or without the server's activation.
        asks_activation: whether requests decide on the activation.
        label: which of the K numbers is the reward; None: the only one.

    Raises:
        MismatchError: it gives something else, or what it gives is ambiguous.
    """
    raw = ask(False)
    check_width(url, raw, label)
    if (raw < 0).any() or (raw > 1).any():
        return "none"
    shaped = ask(True) if asks_activation else raw
    if not np.allclose(raw, shaped, rtol=_CLOSE, atol=_CLOSE):
        return "none"
    if raw.shape[1] > 1 and np.allclose(raw.sum(axis=1), 1, atol=_CLOSE_SUM):
        raise MismatchError(
            f"The server {url} gives {raw.shape[1]} numbers per row that add up to 1: it applied a "
            "softmax, which cannot be undone; start it without (vLLM: --pooler-config "
            "'{\"use_activation\": false}'; SGLang: its native /classify)."
        )
    if asks_activation:
        raise MismatchError(
            f"The server {url} gives the same numbers from 0 to 1 whether use_activation is true "
            "or false, so they may have gone through a sigmoid; pass activation='sigmoid' to undo "
            "it, or activation='none' if its rewards are so."
        )
    if (raw == 1).all():
        raise MismatchError(
            f"The server {url} gives 1.0 for every text: it applied a softmax over one label; "
            "start it without."
        )
    return "none"


def check_width(url: str, raw: np.ndarray, label: int | None) -> None:
    """Raise `MismatchError` unless it is known which of a row's numbers is the reward, also where
    ``label`` names one of a hidden state."""
    width = raw.shape[1]
    if width >= _STATE or (width > 1 and np.allclose((raw**2).sum(axis=1), 1, atol=_CLOSE_SUM)):
        raise MismatchError(
            f"The server {url} gives {width} numbers per row, which are a hidden state "
            "(an embedding) and no rewards: the model was served without its reward head. Serve it "
            "as a classifier (vLLM: --convert classify), or load its folder here; Nemotron-Reward, "
            "which has no such head, with kind='nemotron'."
        )
    if label is not None and not 0 <= label < width:
        raise MismatchError(
            f"The server {url} gives {width} numbers per row; label={label} is none of them."
        )
    if width > 1 and label is None:
        raise MismatchError(
            f"The server {url} gives {width} numbers per row: several labels, or an embedding "
            "where the model was served without its reward head. Serve it as a classifier with "
            "one label, or pass label= with the number that is the reward."
        )


def check_route(route: str, url: str) -> None:
    """Refuse a route whose answers are no rewards; raises `ConfigError`."""
    if route.endswith("/v1/classify"):
        raise ConfigError(
            f"The route {url} gives probabilities (SGLang's is 1.0 for every text); pass the "
            "server's address without it, so that its native /classify is asked."
        )


def undone(values: Sequence[float], rows: range) -> list[float]:
    """Rewards of rows whose sigmoids these are.

    Raises:
        DataError: one is exactly 0 or 1, so its reward is lost.
    """
    for row, value in zip(rows, values, strict=True):
        if value <= 0 or value >= 1:
            raise DataError(
                f"Row {row + 1}: the server's number is {value:g}; its sigmoid has lost the "
                "reward, so have the server give raw rewards (use_activation false)."
            )
    return [math.log(value) - math.log1p(-value) for value in values]


def described(reply: Any) -> str:
    """An answer that cannot be read, in a few words."""
    if reply is None:
        return "no JSON, or null"
    return textwrap.shorten(repr(reply), _SHOWN, placeholder=" …")
