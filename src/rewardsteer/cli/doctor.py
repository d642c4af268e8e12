"""``rewardsteer doctor``: a reward model's tokens, and a check of other programs' rewards."""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.devices import Device, Dtype
from rewardsteer.cli.kind import KindOption, KindOptions, check_kind, kind_options
from rewardsteer.cli.starting import check_reward_model, loading
from rewardsteer.cli.template import TemplateOption, read_template


def doctor_command(
    model: Annotated[str, typer.Argument(help="Reward model: a folder or hub name.")],
    texts: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines with prompt and completion, or prompt, chosen and rejected. Default: "
            "ten short questions with a better and a worse answer.",
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Address of a server that should give the same rewards.")
    ] = None,
    api: Annotated[
        str, typer.Option(help="Its API: auto, rewardsteer, vllm, vllm-pooling, sglang, openrlhf.")
    ] = "auto",
    served_model: Annotated[
        str | None, typer.Option(help="The model's name on that server; default: the only one.")
    ] = None,
    kind: KindOption = None, kind_option: KindOptions = None,
    device: Device = "auto", dtype: Dtype = None, template: TemplateOption = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how a reward model reads a text, and compare its rewards with those of other programs.

    The exit status is 1 where a fault was found.
    """
    check_kind(kind)
    check_reward_model(model)
    options = kind_options(kind_option)
    written = read_template(template)
    loading(model)

    from rewardsteer.devices import parse_dtype
    from rewardsteer.quiet import quiet_libraries

    # The test server in this process would log its requests.
    quiet_libraries(logging.WARNING)

    from rewardsteer.doctor.examination import examine

    found = examine(
        model, texts=texts, url=url, api=api, served_model=served_model, template=written,
        kind=kind, device=device, dtype=parse_dtype(dtype), **options,
    )
    if json_:
        typer.echo(json.dumps(found.as_dict(), ensure_ascii=False, indent=2))
    else:
        typer.echo(str(found))
    if not found.healthy:
        sys.exit(1)
