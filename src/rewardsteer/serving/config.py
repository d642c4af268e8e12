"""What a server allows. No torch here."""

from pydantic import Field

from rewardsteer.configuration import Config

# Every candidate of args, pargs and cd is a row of the reward model's forward pass: a request may
# not ask for so many that memory runs out for all.
MOST_CANDIDATES = 256


class ServingConfig(Config):
    """Limits of a server.

    Attributes:
        places: rows decoded together.
        queue: rows that may wait for a place; beyond that clients are told to come again.
        reward_queue: completions that may wait to be scored.
        reward_tokens: tokens scored together, between two steps of generation.
        max_prompt_tokens: longest prompt; of rewards, longest prompt with its completion.
        max_tokens: most new tokens of a response.
        max_rows: most responses of a request, prompts times n (or best_of).
        max_reward_rows: most completions of a request for rewards.
        max_stops: most stop strings of a request.
        max_stop_characters: longest stop string.
        cache_tokens: tokens, prompts and responses at their longest, that rows which are decoded
            together may have in caches; a row that is longer alone is decoded alone.
        methods_together: methods (each with its own number of candidates) that are decoded in turn;
            each costs a forward pass of the policy at every step.
        inspect_queue: completions that may wait for the inspector.
        max_inspect_tokens: longest completion that the inspector accepts.
        max_body_bytes: largest body of a request.
        seconds: a request that took longer is given up, its waiting included; a stream, when it
            waited so long for its next text.
        header_seconds: time in which a request's headers must have come.
        body_seconds: time in which a request's body must have come.
        connections: most open connections, fewer where the system allows fewer files.
        drain_seconds: after the signal to end, time for what was accepted.
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
