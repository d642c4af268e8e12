"""Request and reply formats of reward servers, one class each.

Forms: rewardsteer's ``/v1/rewards``, vLLM's ``/classify`` and ``/pooling``, SGLang's ``/classify``
and the form of OpenRLHF's remote reward models.
"""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

from rewardsteer.models.remote.rows import (
    Rows,
    RowWriter,
    conversations,
    messages,
)
from rewardsteer.records import Prompt

Numbers = list[list[float]]


class Form(abc.ABC):
    """A format of requests and replies.

    Args:
        writer: writes rows for a server that applies no template; None: the server applies its own.
        model: the model's name there; None: a request names none.

    Attributes:
        path: of the route, under the server's address; "" where the address is the route.
        asks_activation: whether requests say if rewards go through an activation function.
        together: whether a request may hold several rows.
        needs_writer: the server applies no template.
    """

    path: ClassVar[str]
    asks_activation: ClassVar[bool] = False
    needs_writer: ClassVar[bool] = False

    def __init__(self, writer: RowWriter | None, model: str | None) -> None:
        self.writer = writer
        self._named: dict[str, Any] = {} if model is None else {"model": model}
        self.together = True

    @abc.abstractmethod
    def body(self, rows: Rows, *, activation: bool) -> dict[str, Any]:
        """A request's body."""

    @abc.abstractmethod
    def numbers(self, reply: Any) -> Numbers:
        """The numbers of each row, in order.

        Raises:
            LookupError, TypeError, ValueError: the answer has another form.
        """


class OwnForm(Form):
    """``/v1/rewards`` of `rewardsteer serve`."""

    path = "v1/rewards"

    def body(self, rows: Rows, *, activation: bool) -> dict[str, Any]:
        """Prompts and completions, closed or not."""
        items = [
            {"prompt": prompt if isinstance(prompt, str) else messages(prompt), "completion": text}
            for prompt, text in zip(rows.prompts, rows.completions, strict=True)
        ]
        return {**self._named, "input": items, "closed": rows.closed}

    def steps(self, prompts: Sequence[Prompt], steps: Sequence[Sequence[str]]) -> dict[str, Any]:
        """A request for the rewards of steps."""
        items = [
            {"prompt": prompt if isinstance(prompt, str) else messages(prompt), "steps": list(own)}
            for prompt, own in zip(prompts, steps, strict=True)
        ]
        return {**self._named, "input": items}

    def numbers(self, reply: Any) -> Numbers:
        """``data[i].reward``."""
        return [[float(one["reward"])] for one in _ordered(reply["data"])]


class VllmClassify(Form):
    """``/classify`` of vLLM: token ids where rows are written here, else one conversation."""

    path = "classify"
    asks_activation = True

    def __init__(self, writer: RowWriter | None, model: str | None) -> None:
        super().__init__(writer, model)
        self.together = writer is not None

    def body(self, rows: Rows, *, activation: bool) -> dict[str, Any]:
        """Whole rows, or one conversation."""
        named = {**self._named, "use_activation": activation}
        if self.writer is None:
            [turns] = conversations(rows)
            return {
                **named, "messages": turns, "add_generation_prompt": False,
                "continue_final_message": not rows.closed,
            }
        if self.writer.tokenizer is None:
            return {**named, "input": self.writer.texts(rows)[1]}
        return {**named, "input": self.writer.ids(rows)}

    def numbers(self, reply: Any) -> Numbers:
        """``data[i].probs``, which are rewards without an activation."""
        return [[float(value) for value in one["probs"]] for one in _ordered(reply["data"])]


class VllmPooling(VllmClassify):
    """``/pooling`` of vLLM. Models that give a value per token have the reward at the last one."""

    path = "pooling"

    def numbers(self, reply: Any) -> Numbers:
        """``data[i].data``: numbers of the row, or of each of its tokens."""
        found = []
        for one in _ordered(reply["data"]):
            values = one["data"]
            if values and isinstance(values[0], list):
                values = values[-1]
            found.append([float(value) for value in values])
        return found


class SglangClassify(Form):
    """Native ``/classify`` of SGLang. (Its ``/v1/classify`` applies a softmax: always 1.0.)"""

    path = "classify"
    needs_writer = True

    def body(self, rows: Rows, *, activation: bool) -> dict[str, Any]:
        """Whole rows."""
        assert self.writer is not None
        if self.writer.tokenizer is None:
            return {**self._named, "text": self.writer.texts(rows)[1]}
        return {**self._named, "input_ids": self.writer.ids(rows)}

    def numbers(self, reply: Any) -> Numbers:
        """``[i].embedding``."""
        return [[float(value) for value in one["embedding"]] for one in reply]


class OpenRlhf(Form):
    """The form in which OpenRLHF asks a remote reward model (``--remote_rm_url``)."""

    path = ""
    needs_writer = True

    def body(self, rows: Rows, *, activation: bool) -> dict[str, Any]:
        """Written rows, with their prompts."""
        assert self.writer is not None
        prompts, texts = self.writer.texts(rows)
        return {"query": texts, "prompts": prompts, "labels": [""] * len(texts)}

    def numbers(self, reply: Any) -> Numbers:
        """``rewards``: numbers, or lists of one."""
        return [
            [float(value) for value in (one if isinstance(one, list) else [one])]
            for one in reply["rewards"]
        ]


FORMS: dict[str, type[Form]] = {
    "rewardsteer": OwnForm, "vllm": VllmClassify, "vllm-pooling": VllmPooling,
    "sglang": SglangClassify, "openrlhf": OpenRlhf,
}


def _ordered(data: Any) -> list[Any]:
    return sorted(data, key=lambda one: one.get("index", 0))

