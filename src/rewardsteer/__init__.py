"""Train reward models for language, know how good they are, and steer generation with them."""

__version__ = "0.1.0"
