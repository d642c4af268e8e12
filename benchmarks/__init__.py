"""Side-by-side measurements. ``python -m benchmarks [TABLE]`` or ``make bench TABLE=…``."""
