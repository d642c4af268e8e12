"""Running token guides on a transformers model."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.side_by_side import side_by_side
from rewardsteer.decoding.groups import run_groups
from rewardsteer.decoding.guide import GroupGuide, GuideSession, TokenGuide
from rewardsteer.decoding.loop import Batch, Row, decode
from rewardsteer.decoding.memory import memory_told
from rewardsteer.decoding.requests import Request
from rewardsteer.devices import AUTO
from rewardsteer.errors import CheckpointError
from rewardsteer.models.limits import position_limit
from rewardsteer.models.placement import placed
from rewardsteer.models.prefix_reader import PrefixReader


class HfEngine:
    """A policy with its tokenizer.

    Args:
        policy: a causal LM in evaluation mode, on its device.
        tokenizer: the policy's.

    Attributes:
        stop_ids: tokens that end a response: the tokenizer's end-of-text and what the model's
            generation settings name.
        position_limit: longest row the policy can read; None when it has no limit.
        vocabulary_size: token ids that the policy can choose from.
        readable: token ids that it has an embedding for.
    """

    def __init__(self, policy: Any, tokenizer: Any) -> None:
        self.policy = policy.eval()
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids(getattr(policy, "generation_config", None), tokenizer)
        self.position_limit = position_limit(policy.config)
        rows = policy.get_output_embeddings().weight.shape[0]
        self.vocabulary_size = min(rows, len(tokenizer))
        self.readable = int(policy.get_input_embeddings().weight.shape[0])

    def run(self, rows: Sequence[Row], guide: TokenGuide, config: DecodingConfig) -> None:
        """Generate all of the rows, filling them in; see `stream`."""
        deque(self.stream(rows, guide, config), maxlen=0)

    def stream(
        self, rows: Iterable[Row], guide: TokenGuide, config: DecodingConfig
    ) -> Iterator[Row]:
        """Generate rows, ``batch_size`` together, and yield them in the order given; see
        `rewardsteer.decoding.loop.decode`.

        Raises:
            ConfigError: out of memory; names the settings to lower.
        """
        reader, session = self.open(guide)
        with memory_told(config, reader):
            yield from decode(
                reader, session, rows, config, self.stop_ids, places=config.batch_size
            )

    def open(self, guide: TokenGuide) -> tuple[Any, GuideSession]:
        """Begin a batch: readers of the policy and, in the guide's session, of its reward model.
        """
        # A reward model on the policy's own weights reads with it.
        shared = getattr(guide.scorer, "open_policy", None)
        if shared is not None:
            return shared(), guide.open()
        session = guide.open()
        return side_by_side(PrefixReader(self.policy), session, guide.scorer), session

    def groups(
        self, asked: Sequence[tuple[Request, Sequence[int]]], guide: GroupGuide,
        config: DecodingConfig, text_of: Callable[[Row], str],
    ) -> Iterator[Row]:
        """Answers to prompts in the order given, ``batch_size`` rows together; see
        `rewardsteer.decoding.groups.run_groups`.

        Raises:
            ConfigError: out of memory; names the settings to lower.
        """
        reader = PrefixReader(self.policy)
        with memory_told(config, reader):
            batch = Batch(reader, guide.open(), config, self.stop_ids)
            yield from run_groups(batch, asked, guide, config, text_of)


def load_policy(
    source: str | Path, *, device: str | torch.device = AUTO, dtype: torch.dtype | None = None,
    **options: Any,
) -> Any:
    """A causal LM from a folder or hub name, in evaluation mode.

    Args:
        source: the folder or name.
        device: ``auto`` (CUDA, else MPS, else CPU), or a name or device as torch knows it; does not
            count beside a ``device_map``.
        dtype: of the weights; None: as saved.
        options: passed on to ``from_pretrained`` (``device_map``, ``quantization_config``, …).

    Raises:
        CheckpointError: it cannot be loaded.
        ConfigError: there is no such device.
    """
    from transformers import AutoModelForCausalLM

    where, options = placed(source, device, options)

    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(source), dtype=dtype or "auto", trust_remote_code=False, **options
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"The policy {source} cannot be loaded: {error}") from error
    return (model if where is None else model.to(where)).eval()


def stop_ids(settings: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a response: those of a policy's generation settings and end-of-text."""
    named = getattr(settings, "eos_token_id", None)
    several = named if isinstance(named, list | tuple) else [named]
    return frozenset(i for i in (*several, tokenizer.eos_token_id) if i is not None)
