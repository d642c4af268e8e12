"""Use of reward models in other projects' trainers and benchmarks, and publishing on the hub."""
