"""One self-contained HTML file: opens offline, light and dark, on a phone and on paper.

All text is escaped. The page's Content-Security-Policy allows only its own script and style (by
their hashes), and forbids to load or send anything.
"""

import base64
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from html import unescape
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rewardsteer import __version__
from rewardsteer.outputs import write_text
from rewardsteer.reports.drawing import COLOURS
from rewardsteer.reports.sections import Figure, Inspector, Section

_TEMPLATES = files("rewardsteer.reports") / "templates"
STYLES = ("page.css", "inspector.css")
_SCRIPTS = (
    "theme.js", "state.js", "tables.js", "plots.js", "samples.js", "flips.js", "report.js"
)


def write_page(
    path: Path, title: str, summary: str, sections: Sequence[Section], *, footer: str = ""
) -> None:
    """Write `page` atomically to an HTML file."""
    write_text(path, page(title, summary, sections, footer=footer))


def page(title: str, summary: str, sections: Sequence[Section], *, footer: str = "") -> str:
    """The text of a page.

    Args:
        summary: one or two sentences under it.
        sections: in reading order. All text is escaped; only SVG of our own plots is not.
        footer: small print.
    """
    values = {"title": title, "summary": summary, "sections": sections, "footer": footer}
    inspects = any(isinstance(one, Inspector) for part in sections for one in part.blocks)
    scripts = (*(["inspector.js"] if inspects else []), *_SCRIPTS)
    return render("page.html.j2", STYLES, scripts, values)


def render(
    template: str, styles: Sequence[str], scripts: Sequence[str], values: Mapping[str, object], *,
    connect: str = "'none'",
) -> str:
    """A page of the folder ``templates``.

    Args:
        template, styles, scripts: file names; the page gets one style and one script of them all.
        values: what the template shows.
        connect: the policy's ``connect-src``: the addresses that the script may send requests to.
    """
    environment = Environment(
        loader=PackageLoader("rewardsteer.reports"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    number = itertools.count(1)
    environment.filters["svg"] = lambda figure: Markup(_inline(figure, next(number)))  # noqa: S704
    environment.filters["minus"] = _with_minus
    style, script = _joined(styles), _joined(scripts)
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src-elem '{_hash(style)}'; "
        f"style-src-attr 'unsafe-inline'; connect-src {connect}; base-uri 'none'; "
        "form-action 'none'"
    )
    return environment.get_template(template).render(
        values, version=__version__, policy=policy, style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
    )


def policy_of(html: str) -> str:
    """The Content-Security-Policy in a page, which a server also sends as a header."""
    found = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    assert found, "all our pages state one"
    return unescape(found[1])


def _joined(names: Sequence[str]) -> str:
    """Template files as one text, in which nothing can close its HTML element."""
    text = "\n".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in names)
    assert "</" not in text, "it would end the element that it stands in"
    return text


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _with_minus(cell: str) -> str:
    """A number with a typographic minus sign; other text unchanged."""
    if not re.match(r"[+-]?\.?\d", cell):
        return cell
    return re.sub(r"(?<![\w.])-(?=\.?\d)", "−", cell)


def _inline(figure: Figure, number: int) -> str:
    """A plot's SVG for a page with several: its ids are unique, and its colours are the page's."""
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>f{number}-", figure.svg)
    for place, colour in enumerate(COLOURS, start=1):
        svg = re.sub(colour, f"var(--s{place}, {colour})", svg, flags=re.IGNORECASE)
    # A style element in a plot would apply to the whole page.
    return re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
