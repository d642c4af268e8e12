"""Tables of results in Python."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rewardsteer.reports.tables import markdown

if TYPE_CHECKING:
    import pandas as pd



@dataclass(frozen=True)
class Table:
    """A table of figures.

    Attributes:
        title: subject of the figures.
        rows: name of a row → name of a figure → value.
    """

    title: str
    rows: Mapping[str, Mapping[str, Any]]

    def to_pandas(self) -> "pd.DataFrame":
        """A data frame with one row per name."""
        import pandas as pd

        return pd.DataFrame.from_dict({name: dict(row) for name, row in self.rows.items()},
                                      orient="index")

    def to_markdown(self) -> str:
        """A Markdown table, with a dash for figures that were not measured."""
        columns = list(dict.fromkeys(key for row in self.rows.values() for key in row))
        return markdown(["", *columns], [
            [name, *(_cell(row.get(column)) for column in columns)]
            for name, row in self.rows.items()
        ])

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        return self.rows[name]

    def __str__(self) -> str:
        return f"{self.title}\n\n{self.to_markdown()}"

    def _repr_html_(self) -> str:
        return str(self.to_pandas().to_html())


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
