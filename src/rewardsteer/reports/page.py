"""One self-contained HTML file: opens offline, light and dark, on a phone and on paper."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rewardsteer import __version__
from rewardsteer.outputs import write_text
from rewardsteer.reports.sections import Section


def write_page(path: Path, title: str, summary: str, sections: Sequence[Section]) -> None:
    """Render and write the page whole or not at all.

    Args:
        path: the HTML file.
        title: heading of the page.
        summary: one or two sentences under it.
        sections: in reading order. All text is escaped; only SVG of our own plots is not.
    """
    environment = Environment(
        loader=PackageLoader("rewardsteer.reports"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup
    html = environment.get_template("page.html.j2").render(
        title=title, summary=summary, sections=sections, version=__version__
    )
    write_text(path, html)
