"""Process reward models that are language models: the value of a step is the share of one of two
tokens."""

from typing import Any

from torch import Tensor

from rewardsteer.errors import ConfigError
from rewardsteer.models.kinds.parts import replace_outputs, single_id
from rewardsteer.models.kinds.stepwise import StepScorer


class CausalPrm(StepScorer):
    """softmax over the logits of a good and a bad token: the good one's share. Such a folder is
    that of any language model, so it is never recognised and the kind is named by hand.

    Args:
        model: a causal language model; its output layer is cut down to the two tokens.
        tokenizer: the model's.
        good, bad: the tokens, as text.
        options: see `StepScorer`.
    """

    kind = "causal_prm"
    auto_class = "AutoModelForCausalLM"

    def __init__(
        self, model: Any, tokenizer: Any, *, good: str = "+", bad: str = "-", **options: Any
    ) -> None:
        super().__init__(model, tokenizer, **options)
        self.good, self.bad = good, bad
        self.activation = f"softmax of {good!r} and {bad!r}"
        self.good_id, bad_id = single_id(tokenizer, good, "good"), single_id(tokenizer, bad, "bad")
        if self.good_id == bad_id:
            raise ConfigError(
                f"good and bad must be different tokens; {good!r} and {bad!r} are both token "
                f"{bad_id}."
            )
        replace_outputs(model, lambda rows: rows[[self.good_id, bad_id]])

    def values(self, outputs: Tensor) -> Tensor:
        """Shares of the good token."""
        return outputs.softmax(-1)[:, 0]
