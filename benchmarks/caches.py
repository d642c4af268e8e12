"""Time of a key/value cache's operations in decoding: ours against those of transformers.

`python -m benchmarks.caches` prints milliseconds by model, rows and operation.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicCache, StaticCache

from rewardsteer.models.preallocated_cache import PreallocatedCache

MODELS = {"4 x 256": (4, 256), "8 x 512": (8, 512)}
ROWS, WIDTH, STEPS = (8, 64), 350, 20


def model_of(layers: int, width: int) -> Any:
    """A Llama with random weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=2048, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=width // 64,
    )).eval()


def milliseconds(work: Callable[[], object], runs: int = STEPS) -> float:
    """Median of several runs."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def caches(model: Any, rows: int) -> dict[str, Any]:
    """An empty cache of each kind."""
    return {
        "preallocated": PreallocatedCache(), "dynamic": DynamicCache(),
        "static": StaticCache(model.config, max_cache_len=WIDTH + 4 * STEPS),
    }


def admit(cache: Any, row: int, other: Any) -> None:
    """Put the only row of another cache into a row of this one."""
    if isinstance(cache, PreallocatedCache):
        cache.place(torch.tensor([row]), other)
        return
    for mine, theirs in zip(cache.layers, other.layers, strict=True):
        for name in ("keys", "values"):
            states = getattr(mine, name).clone()
            states[row : row + 1, :, -theirs.keys.shape[2] :] = getattr(theirs, name)
            setattr(mine, name, states)


@torch.no_grad()
def measure(model: Any, rows: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each operation by kind of cache."""
    ids = torch.randint(0, 2048, (rows, WIDTH))
    found: dict[str, dict[str, float]] = {}
    for name, cache in caches(model, rows).items():
        model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        step = ids[:, :1]
        position = itertools.count(WIDTH)

        def append(cache: Any = cache, step: Any = step, position: Any = position) -> None:
            at = torch.full((1, 1), next(position))
            model(step, past_key_values=cache, use_cache=True, position_ids=at)

        found[name] = {"append": milliseconds(append)}
        if name == "static":
            continue  # a static cache can drop neither rows nor columns
        one = PreallocatedCache() if name == "preallocated" else DynamicCache()
        model(ids[:1], past_key_values=one, use_cache=True, logits_to_keep=1)
        found[name]["admit"] = milliseconds(lambda c=cache, o=one: admit(c, 1, o))
        order = torch.arange(rows)
        order[1] = rows - 1
        if name == "preallocated":
            found[name]["select"] = milliseconds(lambda c=cache, o=order: c.select(o))
            found[name]["back"] = milliseconds(lambda c=cache: c.crop_columns(right=1))
        else:
            found[name]["select"] = milliseconds(lambda c=cache, o=order: c.reorder_cache(o))
            found[name]["back"] = milliseconds(lambda c=cache: c.crop(-1))
    return found


def main() -> None:
    """Print the table."""
    for name, shape in MODELS.items():
        model = model_of(*shape)
        for rows in ROWS:
            for kind, times in measure(model, rows).items():
                figures = ", ".join(f"{what} {value:.2f}" for what, value in times.items())
                print(f"{name}, {rows} rows, {kind}: {figures}")


if __name__ == "__main__":
    main()
