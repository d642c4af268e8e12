"""Tiny folders of the form in which published reward models lie, and the plain way to score them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from rewardsteer.models.kinds import load_scorer
from tests.chat import save_policy

SIZE = 32
PROMPTS = ["What is 7+8?", "Who?", "a b", "What is 7+8?", "zz"]
COMPLETIONS = ["It is 15.", "me", "c", "no idea, sorry", "1 2 3 4 5 6 7"]


def publish(
    folder: Path, head: dict[str, Tensor], *, family: str = "llama3", keep_lm_head: bool = False,
    prefix: tuple[str, str] = ("", ""), **config: Any,
) -> Path:
    """A tiny Llama with a chat family's tokenizer, whose language-model head gives way to ``head``;
    ``prefix`` renames the backbone's weights, ``config`` changes config.json (None: left out)."""
    save_policy(folder, family)
    weights = load_file(folder / "model.safetensors")
    if not keep_lm_head:
        weights.pop("lm_head.weight", None)
    old, new = prefix
    weights = {new + name.removeprefix(old): value for name, value in weights.items()}
    save_file(weights | head, folder / "model.safetensors", metadata={"format": "pt"})
    place = folder / "config.json"
    known = json.loads(place.read_text()) | config
    place.write_text(json.dumps({key: value for key, value in known.items() if value is not None}))
    return folder


def conversation(prompt: str, completion: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]


def chat_ids(folder: Path, prompt: str, completion: str) -> list[int]:
    """Token ids of a conversation, rendered and tokenized in one call."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(conversation(prompt, completion), return_dict=False)
    return list(ids)


def backbone(folder: Path) -> Any:
    """The hidden states' model, loaded from a folder whose weights have transformers' names."""
    return AutoModel.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def states(model: Any, ids: list[int]) -> Tensor:
    """``[T, D]`` of one row, without padding."""
    return model(torch.tensor([ids])).last_hidden_state[0]


def check_order_and_batches(folder: Path, expected: np.ndarray, **options: Any) -> Any:
    """Scores equal the transcription whatever the batch, its padding and the order."""
    scorer = load_scorer(folder, device="cpu", **options)
    for size in (1, 2, 16):
        found = scorer.score(PROMPTS, COMPLETIONS, batch_size=size)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    turned = scorer.score(PROMPTS[::-1], COMPLETIONS[::-1], batch_size=3)
    np.testing.assert_allclose(turned[::-1], expected, atol=1e-5)
    return scorer


def random(*shape: int, seed: int = 0) -> Tensor:
    """Weights of a size that keeps rewards apart."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3
