"""Reward models inside other projects' trainers and benchmarks."""
