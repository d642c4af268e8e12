"""Limits of a server. No torch here."""

from pydantic import Field

from rewardsteer.configuration import Config

# Every candidate of args, pargs and cd is a row of the reward model's forward pass, so one request
# could use up the memory of all.
MOST_CANDIDATES = 256


class ServingConfig(Config):
    """Limits of a server.

    Attributes:
        places: maximum number of sequences in a decoding batch.
        queue: maximum number of sequences that wait for a place; beyond it clients get 429.
        reward_queue: maximum number of completions that wait to be scored.
        reward_tokens: tokens scored in one batch, between two steps of generation.
        max_prompt_tokens: longest prompt; in requests for rewards, longest prompt with its
            completion.
        max_tokens: most new tokens per response.
        max_rows: most responses per request, prompts times n (or best_of).
        max_reward_rows: most completions per request for rewards.
        max_stops: most stop strings per request.
        max_stop_characters: longest stop string.
        cache_tokens: most tokens (prompts and full-length responses) of the sequences in a decoding
            batch; a longer sequence is decoded alone.
        methods_together: maximum number of methods (each with its own number of candidates) that
            are decoded in turn; each costs a forward pass of the policy at every step.
        inspect_queue: completions that may wait for the inspector.
        max_inspect_tokens: longest completion that the inspector accepts.
        max_body_bytes: largest body of a request.
        seconds: time limit of a request, waiting included; in a stream, the limit for each next
            text.
        header_seconds: time limit for a request's headers.
        body_seconds: time limit for a request's body.
        connections: maximum number of open connections; lower where the system allows fewer files.
        drain_seconds: time to finish accepted requests after the signal to end.
    """

    places: int = Field(default=32, ge=1)
    queue: int = Field(default=256, ge=1)
    reward_queue: int = Field(default=1024, ge=1)
    reward_tokens: int = Field(default=4096, ge=1)
    max_prompt_tokens: int = Field(default=4096, ge=1)
    max_tokens: int = Field(default=1024, ge=1)
    max_rows: int = Field(default=64, ge=1)
    max_reward_rows: int = Field(default=512, ge=1)
    max_stops: int = Field(default=16, ge=0)
    max_stop_characters: int = Field(default=256, ge=1)
    cache_tokens: int = Field(default=65536, ge=1)
    methods_together: int = Field(default=4, ge=1)
    inspect_queue: int = Field(default=4, ge=1)
    max_inspect_tokens: int = Field(default=256, ge=1)
    max_body_bytes: int = Field(default=8 * 2**20, ge=1)
    seconds: float = Field(default=300.0, gt=0)
    header_seconds: float = Field(default=10.0, gt=0)
    body_seconds: float = Field(default=30.0, gt=0)
    connections: int = Field(default=1024, ge=1)
    drain_seconds: float = Field(default=60.0, ge=0)
