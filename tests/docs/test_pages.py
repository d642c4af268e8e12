"""The site builds without a warning, and the Python on its pages compiles and finds its imports."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

from rewardsteer.reports.runs import write_runs_page
from tests.docs.commands import PAGES, ROOT, python_blocks

BLOCKS = [(page.name, block) for page in PAGES for block in python_blocks(page)]


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[page for page, _ in BLOCKS])
def test_python_compiles_and_imports(page, block):
    """test_python_page.py executes what needs tiny models alone. Abbreviations (…) become ``...``.
    """
    tree = ast.parse(block.replace("…", "..."))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("rewardsteer", "trl"):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"


@pytest.mark.parametrize(("records", "example"), [
    ("smollm2", "inspector-smollm2"), ("demo", "inspector"),
])
def test_examples_are_what_the_report_shows_now(records, example, tmp_path, monkeypatch):
    """docs/examples.md has the commands that make them again."""
    monkeypatch.chdir(ROOT)
    write_runs_page([Path("runs/results/inspections", records)], tmp_path / "page.html")
    kept = ROOT / "docs" / "examples" / f"{example}.html"
    assert (tmp_path / "page.html").read_text() == kept.read_text()


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"[\w/]+\.md", yaml.safe_dump(
        yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])))
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert there == listed


def test_site_builds_strictly_and_asks_nobody(tmp_path, monkeypatch):
    pytest.importorskip("mkdocs", reason="pip install 'rewardsteer[docs]'")
    import socket

    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    def no_network(*_, **__):
        raise AssertionError("the build must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.chdir(ROOT)
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    page = (tmp_path / "index.html").read_text()
    outside = set(re.findall(r'(?:src|href)="(https?://[^"]+)"', page))
    # A footer names its maker; scripts, styles and fonts are the site's own.
    assert not [url for url in outside if re.search(r"\.(js|css|woff2?)|font", url)]
    assert "score_ids" in (tmp_path / "api/models/index.html").read_text()
