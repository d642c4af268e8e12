"""Settings of data preparation. No torch here."""

from typing import Any

from pydantic import Field, model_validator

from rewardsteer.configuration import Config
from rewardsteer.data.template import Template


class SourceConfig(Config):
    """One source of comparisons.

    Attributes:
        name: as in ``rewardsteer data list``.
        path: local file or folder; None reads the source's published place on the hub.
        weight: share of the blend when there are several sources.
        options: the source's own options (attribute, field mapping, …).
    """

    name: str
    path: str | None = None
    weight: float = Field(1.0, gt=0)
    options: dict[str, Any] = Field(default_factory=dict)


class DataConfig(Config):
    """What to prepare.

    Attributes:
        sources: one source, or several blended by weight.
        template: how prompts and responses are written.
        max_length: longest prompt + response in tokens; longer rows are dropped and counted.
        prefix_start: response prefixes are looked at from the token after this many on (the
            published 10: the 11th token).
        prefix_count: prefixes drawn per response; None takes all.
        test_fraction: share of prompts held out when a source has no test split.
        train_rows, test_rows: at most this many comparisons, drawn at random; None takes all.
        drop_overlap: drop training rows whose prompt is in the test split.
        seed: of split, draws and blend.
    """

    sources: list[SourceConfig] = Field(min_length=1)
    template: Template = Template()
    max_length: int = Field(512, ge=2)
    prefix_start: int = Field(10, ge=0)
    prefix_count: int | None = Field(None, ge=1)
    test_fraction: float = Field(0.05, gt=0, lt=1)
    train_rows: int | None = Field(None, ge=1)
    test_rows: int | None = Field(None, ge=1)
    drop_overlap: bool = True
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, values: Any) -> Any:
        """``source: hh`` is short for one source with that name."""
        if isinstance(values, dict) and "source" in values:
            if "sources" in values:
                raise ValueError("give source or sources, not both")
            values = dict(values)
            source = values.pop("source")
            values["sources"] = [{"name": source} if isinstance(source, str) else source]
        return values
