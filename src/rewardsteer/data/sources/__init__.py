"""Where comparisons come from, by name.

A source is a function ``load(split, *, path=None, reading=None, **options) ->
Iterator[Comparison]``; ``reading`` (a `reading.Reading`) holds the settings and counts what
is left out. A source without a split of that name raises `NoSplitError` and is then split by
prompt.
"""

from rewardsteer.registry import Registry

_PLACE = "rewardsteer.data.sources"

SOURCES = Registry(
    "data source",
    {
        name: f"{_PLACE}.{name}:load"
        for name in (
            "arithmetic", "graded", "helpsteer", "hh", "judged", "openmath", "pairs", "tldr",
            "ultrafeedback",
        )
    },
)


class NoSplitError(LookupError):
    """A source has no such split; never reaches users."""
