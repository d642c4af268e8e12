"""How to generate. No torch here: the command line and recipes read it."""

from typing import Literal

from pydantic import Field

from rewardsteer.configuration import Config


class DecodingConfig(Config):
    """Settings of one generation run.

    Attributes:
        method: name of the decoding method.
        mode: ``greedy`` takes the best token, ``sample`` draws one.
        temperature: divides the (guided) scores before drawing; without meaning when greedy.
        top_k: tokens to draw from, 0 for all. ``args`` and ``pargs`` ask the reward model about
            the policy's ``top_k`` best tokens, greedy or not.
        weight: w of the guided methods, in logits per reward unit; 0 is the policy alone.
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
    n: int = Field(default=8, ge=1)
    beam: int = Field(default=4, ge=1)
    branches: int = Field(default=2, ge=1)
    step_separator: str = "\n"
    step_tokens: int = Field(default=52, ge=1)
    max_steps: int = Field(default=16, ge=1)
    max_new_tokens: int = Field(default=64, ge=1)
    batch_size: int = Field(default=8, ge=1)
    seed: int = 0
