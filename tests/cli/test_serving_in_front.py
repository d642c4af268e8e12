"""`rewardsteer serve --engine openai`: what is missing is told before anything loads."""

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app


@pytest.mark.parametrize(("words", "message"), [
    (["--engine", "openai"], "needs --base-url"),
    (["--engine", "openai", "--base-url", "http://127.0.0.1:9/v1"], "pass --tokenizer"),
    (["--base-url", "http://127.0.0.1:9/v1"], "are for --engine openai"),
    (["--engine", "nothing"], "Unknown engine 'nothing'"),
])
def test_refused(words, message):
    result = CliRunner().invoke(app, ["serve", *words])
    assert result.exit_code != 0
    assert message in " ".join(result.output.split()) or message in str(result.exception)
