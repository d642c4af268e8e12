"""Easy-to-hard (ScalableMath/llemma-7b-prm-prm800k-level-1to3-hf): a language model whose mean
logit over the vocabulary says how good a step is (arXiv 2403.09472).

Values are read where the authors' own script reads them (inference_reward.py), behind each step.
RewardMATH's script begins one blank line earlier, before the first step: its first value is the
same for all solutions of a question, and the last step has none.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rewardsteer.data.text_ids import bare_ids
from rewardsteer.errors import CheckpointError, DataError
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.parts import question_of, replace_outputs
from rewardsteer.models.kinds.stepwise import EncodedSteps, StepScorer
from rewardsteer.records import Prompt

_MARK = "\n\n"


class EasyToHard(StepScorer):
    """σ of the mean logit at the first token of the blank line behind each step.

    Args:
        model: a causal language model; its output layer is cut down to the mean of its rows.
        tokenizer: the model's.
        options: see `StepScorer`.
    """

    kind = "easy_to_hard"
    summary = "process reward model of easy-to-hard: the mean logit behind each step"
    auto_class = "AutoModelForCausalLM"
    activation = "sigmoid of the mean logit"

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        mark = bare_ids(_MARK, tokenizer)
        # SentencePiece marks the beginning of a text.
        self._mark = mark[tokenizer.convert_ids_to_tokens(mark[0]) == "▁" :]
        replace_outputs(model, lambda rows: rows.float().mean(0, keepdim=True))

    def encode_steps(self, prompt: Prompt, steps: Sequence[str]) -> EncodedSteps:
        """Question and solution under their headings, tokenized in one piece; a blank line is
        behind each step."""
        solution = _MARK + "".join(step + _MARK for step in steps)
        if _places(solution, _MARK) != len(steps) + 1:
            raise DataError("a step begins or ends with a line break or holds a blank line; the "
                            f"kind {self.kind} divides steps by blank lines, so take them out.")
        text = f"# Question\n\n{question_of(prompt, self.kind)}\n\n# Solution{solution}"
        ids = list(self.tokenizer(text)["input_ids"])
        width = len(self._mark)
        found = [at for at in range(len(ids)) if ids[at : at + width] == self._mark]
        if len(found) != _places(text, _MARK):
            raise DataError(
                f"expected each blank line as the {width} tokens that it is alone, but the "
                "tokenizer merges some with the text around them; the kind "
                f"{self.kind} needs the one of EleutherAI/llemma_7b."
            )
        return EncodedSteps(ids, found[-len(steps) :])

    @classmethod
    def check(cls, folder: FolderDescription) -> None:
        """Refuse logits that are capped, whose mean is not the cap of the mean."""
        if folder.config.get("final_logit_softcapping"):
            raise CheckpointError(
                f"The logits of {folder.name} are capped by its configuration, which the kind "
                f"{cls.kind} does not do."
            )

    def values(self, outputs: Tensor) -> Tensor:
        """σ of the mean logits."""
        return outputs[:, 0].sigmoid()


def _places(text: str, part: str) -> int:
    """How often a text holds a part, overlaps included."""
    return sum(text.startswith(part, at) for at in range(len(text)))
