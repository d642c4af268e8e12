"""How to generate. No torch here: the command line and recipes read it."""

from typing import Literal

from pydantic import Field, model_validator

from rewardsteer.configuration import Config


class DecodingConfig(Config):
    """Settings of one generation run.

    Attributes:
        method: name of the decoding method.
        mode: ``greedy`` takes the best token, ``sample`` draws one.
        temperature: divides the (guided) scores before drawing; without meaning when greedy.
        top_k: tokens to draw from, 0 for all. ``args``, ``pargs`` and ``cd`` ask the reward model
            about the policy's ``top_k`` best tokens, greedy or not.
        weight: w of the guided methods, in logits per reward unit; 0 is the policy alone. For
            ``genarm`` this is the paper's 1/β. With several reward models it multiplies their sum.
        weight_schedule: how w changes over a response, for the methods that guide token by token:
            not at all, or from ``weight`` at the first token to ``weight_end`` at the
            ``max_new_tokens``-th, along a line or half a cosine wave.
        weight_end: where the schedule ends; needed by a schedule, refused without one.
        target_kl: instead of a fixed w, for the methods that guide token by token: at every token
            the w ≥ 0 with which what is drawn from has this KL divergence, in nats, from what
            plain sampling draws from, both on the policy's ``top_k`` best tokens. Of ``weight``
            only the sign counts then. None: no target.
        max_kl: as ``target_kl``, but w is lowered to that where it would lead further, never
            raised. None: no limit.
        n: responses drawn per prompt by ``best_of_n``.
        beam: hypotheses that ``goal_beam`` keeps of each prompt.
        branches: steps drawn from each hypothesis in a round of ``goal_beam``.
        step_separator: a step ends after a token whose text contains it; "" never ends one.
        step_tokens: longest step.
        max_steps: most rounds of ``goal_beam``.
        max_new_tokens: longest response, end-of-text included.
        batch_size: rows decoded together; results do not depend on it beyond rounding.
        seed: every request draws from its own generator, made from this and the request's id.
    """

    method: str = "none"
    mode: Literal["greedy", "sample"] = "sample"
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=10, ge=0)
    weight: float = Field(default=1.0, allow_inf_nan=False)
    weight_schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_end: float | None = Field(default=None, allow_inf_nan=False)
    target_kl: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    max_kl: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    n: int = Field(default=8, ge=1)
    beam: int = Field(default=4, ge=1)
    branches: int = Field(default=2, ge=1)
    step_separator: str = "\n"
    step_tokens: int = Field(default=52, ge=1)
    max_steps: int = Field(default=16, ge=1)
    max_new_tokens: int = Field(default=64, ge=1)
    batch_size: int = Field(default=8, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _one_control(self) -> "DecodingConfig":
        scheduled = self.weight_schedule != "constant"
        if scheduled != (self.weight_end is not None):
            raise ValueError(
                "a weight_schedule (linear or cosine) and a weight_end go together; got "
                f"weight_schedule={self.weight_schedule!r} and weight_end={self.weight_end}"
            )
        if self.target_kl is not None and (scheduled or self.max_kl is not None):
            raise ValueError("a target_kl leaves no room for a weight_schedule or a max_kl")
        return self
