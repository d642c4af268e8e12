"""Responses to a prompt with numbers: the record of data sources without pairs."""

from typing import Any

from pydantic import Field, model_validator

from rewardsteer.records import Comparison, Prompt, Record


class Responses(Record):
    """One or several responses to one prompt, each with numbers: ratings, ranks, labels.

    Attributes:
        id: unique within its set and stable across runs.
        prompt: text, or the conversation up to and including the last user turn.
        responses: K texts of the assistant's turn, without end-of-text.
        numbers: K numbers by name; None where a response has none. They reach `PairBatch.numbers`.
        subset: category within the source, for metrics by subset.
        tools: functions that the prompt's chat template lists, as JSON schemas; None without.
        place: file and row it was read from, for error messages; "" when unknown.
    """

    id: str
    prompt: Prompt
    responses: list[str] = Field(min_length=1)
    numbers: dict[str, list[float | None]] = Field(default_factory=dict)
    source: str = ""
    subset: str = ""
    tools: list[dict[str, Any]] | None = None
    place: str = Field("", exclude=True)

    @model_validator(mode="after")
    def _counts(self) -> "Responses":
        count = len(self.responses)
        for name, values in self.numbers.items():
            if len(values) != count:
                raise ValueError(f"{len(values)} numbers named {name} for {count} responses")
        return self


# What a data source yields.
SourceRow = Comparison | Responses
