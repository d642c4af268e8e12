"""Side-by-side measurements. ``python -m benchmarks [TABLE]`` or ``make bench TABLE=…``."""

import os

# Before torch is imported: one GPU at most, as one process uses it, and nothing from the network.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
