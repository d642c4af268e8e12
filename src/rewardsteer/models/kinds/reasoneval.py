"""ReasonEval (GAIR): three classes at the end of each step — incorrect, redundant, good.

The steps are tokenized with the padding token between them, which is then taken out. Where the
padding token is also the beginning of text (ReasonEval-7B), the published script scores each step
one token before its last; the model's published figures are of these values.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rewardsteer.errors import ConfigError, DataError
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.parts import question_of
from rewardsteer.models.kinds.stacks import FoundHead
from rewardsteer.models.kinds.stepwise import EncodedSteps, StepScorer
from rewardsteer.records import Prompt

_PROMPT = "Question:\n{question}\nAnswer:\nLet's think step by step.\n"
_CLASSES = {"validity": (1, 2), "redundancy": (1,)}


class ReasonEval(StepScorer):
    """Probability that a step is valid: that of the classes redundant and good together.

    Args:
        model: the backbone.
        tokenizer: with a padding token.
        value: ``validity``, or ``redundancy``, the probability of that class.
        options: see `StepScorer`.
    """

    kind = "reasoneval"
    summary = "process reward model as ReasonEval: three classes at step ends"
    published_head = FoundHead("score_head", ("score_head",), 3)
    biased_head = False

    def __init__(
        self, model: Any, tokenizer: Any, *, value: str = "validity", **options: Any
    ) -> None:
        super().__init__(model, tokenizer, **options)
        if value not in _CLASSES:
            raise ConfigError(f"value must be {' or '.join(_CLASSES)}, got {value!r}.")
        if tokenizer.pad_token is None:
            raise ConfigError(
                f"{self.name or 'The reward model'} has no padding token in its tokenizer, which "
                f"a {self.kind} model divides steps with; copy tokenizer_config.json again."
            )
        self.value = value
        self.activation = f"softmax of three classes, {value}"

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """A head ``score_head`` of three classes."""
        return not folder.has_card and cls.has_head(folder)

    def encode_steps(self, prompt: Prompt, steps: Sequence[str]) -> EncodedSteps:
        """The published prompt with the steps, without the marks that divide them."""
        mark, mark_id = self.tokenizer.pad_token, self.tokenizer.pad_token_id
        text = _PROMPT.format(question=question_of(prompt, self.kind))
        marked = self.tokenizer(mark.join([text, *steps, ""]))["input_ids"]
        ids: list[int] = []
        columns = []
        for token in marked:
            if token == mark_id:
                columns.append(len(ids) - 1)
            else:
                ids.append(token)
        # The first mark ends the question; before it there may be the beginning of text.
        begins = marked[:1] == [mark_id]
        columns = columns[1 + begins :]
        if len(columns) != len(steps):
            raise DataError(
                f"expected {len(steps)} marks {mark!r}, one behind each step, and the text holds "
                f"{len(columns)}; take it out of the prompt and the steps."
            )
        return EncodedSteps([mark_id, *ids] if begins else ids, columns)

    def values(self, outputs: Tensor) -> Tensor:
        """Probabilities of the classes that count."""
        return outputs.softmax(-1)[:, list(_CLASSES[self.value])].sum(-1)
