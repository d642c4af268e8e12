"""Settings of data preparation. This module does not import torch."""

from typing import Any, Literal

from pydantic import Field, model_validator

from rewardsteer.configuration import Config, Seed
from rewardsteer.data.template import Template


class SourceConfig(Config):
    """One source of comparisons.

    Attributes:
        name: as in ``rewardsteer data list``.
        path: local file or folder; None reads the source's published data set on the hub.
        weight: share of the blend when there are several sources.
        options: the source's own options (attribute, field mapping, …).
        splits: the data's own split names, ``{train: …, test: …}``, where they differ.
        hub: a data set on the hub in place of the published one.
        config: the hub data set's configuration.
        revision: its branch, tag or commit.
        data_dir: a folder within it, or within ``path``.
    """

    name: str
    path: str | None = None
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    splits: dict[Literal["train", "test"], str] = Field(default_factory=dict)
    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    data_dir: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_place(self) -> "SourceConfig":
        unused = [name for name in ("hub", "config", "revision") if getattr(self, name) is not None]
        if self.path is not None and unused:
            raise ValueError(
                f"path names a local file or folder, and {' and '.join(unused)} a data set on the "
                "hub; leave out one or the other"
            )
        return self


class DataConfig(Config):
    """What to prepare.

    Attributes:
        sources: one source, or several.
        blend: how the training rows of several sources are put together. ``concatenate`` takes all,
            in random order; ``weighted`` takes all, drawn by the sources' weights while they last,
            so ``train_rows`` cuts by weight; ``first_exhausted`` draws by weight and stops when a
            source runs dry; ``all_exhausted`` restarts such a source until each was used up.
            None: ``concatenate``, or ``weighted`` where the weights differ. Test rows are
            concatenated always.
        template: how prompts and responses are written.
        max_length: longest prompt + response in tokens; longer rows are dropped and counted.
        prefix_start: response prefixes have more tokens than this (with the published 10, the
            shortest prefix has 11).
        prefix_count: prefixes drawn per response; None takes all.
        test_fraction: share of prompts held out when a source has no test split.
        train_rows, test_rows: most comparisons of a split, drawn at random; None takes all.
        drop_overlap: drop training rows whose prompt is in the test split.
        on_error: ``raise`` an error at an invalid row, or ``drop`` and count it.
        num_proc: processes that tokenize; None takes one per processor. The rows do not depend on
            it.
        seed: of split, draws and blend.
    """

    sources: list[SourceConfig] = Field(min_length=1)
    blend: Literal["concatenate", "weighted", "first_exhausted", "all_exhausted"] | None = None
    template: Template = Template()
    max_length: int = Field(512, ge=2)
    prefix_start: int = Field(10, ge=0)
    prefix_count: int | None = Field(None, ge=1)
    test_fraction: float = Field(0.05, gt=0, lt=1)
    train_rows: int | None = Field(None, ge=1)
    test_rows: int | None = Field(None, ge=1)
    drop_overlap: bool = True
    on_error: Literal["raise", "drop"] = "raise"
    num_proc: int | None = Field(None, ge=1)
    seed: Seed = 0

    @property
    def blend_rule(self) -> str:
        """The blend rule, with the default for None resolved."""
        if self.blend is not None:
            return self.blend
        return "weighted" if len({source.weight for source in self.sources}) > 1 else "concatenate"

    @model_validator(mode="after")
    def _weights_are_used(self) -> "DataConfig":
        if self.blend == "concatenate" and len({source.weight for source in self.sources}) > 1:
            raise ValueError(
                "weights that differ are not used by blend=concatenate; leave blend out, or choose "
                "weighted, first_exhausted or all_exhausted"
            )
        return self

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
