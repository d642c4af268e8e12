"""Side-by-side measurements. ``python -m benchmarks [TABLE]`` or ``make bench TABLE=…``."""

import os

# Set before torch is imported: a process uses one GPU at most, and nothing is downloaded.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
