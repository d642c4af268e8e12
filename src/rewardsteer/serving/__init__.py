"""Guided generation and rewards over HTTP: OpenAI's forms, batched as they come."""
