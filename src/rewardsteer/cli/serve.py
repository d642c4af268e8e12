"""``rewardsteer serve``: guided generation and rewards over HTTP."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rewardsteer.addresses import is_address
from rewardsteer.cli.decoding_options import check_used, decoding_options
from rewardsteer.cli.engines import EngineOptions, choose_engine, engine_options
from rewardsteer.cli.generate_options import DraftModel, GateModel
from rewardsteer.cli.kind import KindOption, KindOptions, check_kind, kind_options
from rewardsteer.cli.reward_models import choose_method, load_gate_model
from rewardsteer.cli.starting import check_model, check_reward_model, loading, say
from rewardsteer.cli.template import TemplateOption, read_template, show_template
from rewardsteer.decoding.engines.choice import EngineChoice
from rewardsteer.decoding.methods import METHODS

if TYPE_CHECKING:
    from rewardsteer.data.template import Template
    from rewardsteer.serving.config import ServingConfig
    from rewardsteer.serving.models import ServedModels

Model = Annotated[
    str | None,
    typer.Option(
        help="Policy: a causal LM folder or hub name; without one, only rewards are served.",
        rich_help_panel="Models",
    ),
]
RewardModel = Annotated[
    str | None,
    typer.Option(
        help="Reward model: a folder, hub name or address of any kind (docs/reward_models.md).",
        rich_help_panel="Models",
    ),
]
MethodName = Annotated[
    str | None,
    typer.Option(
        help=f"Method of requests without one: {', '.join(METHODS.names())}, or your own as "
        "package.module:Class. Default: what the reward model was trained for; none without one.",
        rich_help_panel="Models",
    ),
]
Name = Annotated[
    str | None, typer.Option(help="Name of the policy for clients; default: its folder's name.")
]
Host = Annotated[str, typer.Option(help="Address to listen on; default: only this machine.")]
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one and prints it.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the API key that clients must send; else the environment variable "
        "REWARDSTEER_API_KEY is read."
    ),
]
Anyone = Annotated[
    bool, typer.Option("--allow-anyone", help="Listen to other machines without an API key.")
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", help="A limit, as name=value; repeatable. Names: places, queue, reward_queue, "
        "reward_tokens, max_prompt_tokens, max_tokens, max_rows, max_reward_rows, max_stops, "
        "max_stop_characters, cache_tokens, methods_together, inspect_queue, max_inspect_tokens, "
        "max_body_bytes, seconds, header_seconds, body_seconds, connections, drain_seconds "
        "(docs/serving_reference.md).",
    ),
]


@engine_options
@decoding_options(
    "weight", "top_k", "top_p", "min_p", "repetition_penalty", "stop", "temperature",
    panel="Defaults of requests",
)
def serve_command(
    *, model: Model = None, reward_model: RewardModel = None, method: MethodName = None,
    settings: dict[str, Any], name: Name = None, template: TemplateOption = None,
    host: Host = "127.0.0.1", port: Port = 8000, api_key_file: KeyFile = None,
    allow_anyone: Anyone = False, limit: Limits = None, running: EngineOptions,
    kind: KindOption = None, kind_option: KindOptions = None,
    draft_model: DraftModel = None, gate_model: GateModel = None,
) -> None:
    """Serve guided generation and rewards over HTTP, in OpenAI's format, until a signal ends it.

    The API key is never given on the command line, where other users could see it.
    """
    from rewardsteer.configuration import load_config
    from rewardsteer.errors import ConfigError
    from rewardsteer.serving.config import ServingConfig
    from rewardsteer.serving.reach import bind, check_reach, read_key

    choice = choose_engine(running, model, no_policy=True)
    written = read_template(template)
    limits = load_config(ServingConfig, {}, limit or [])
    if method is not None:
        METHODS.check(method)
    of_kind = {"kind": kind, **kind_options(kind_option)}
    _check_models(choice, model, reward_model, kind)
    check_model(None if choice.by_address else draft_model)
    check_reward_model(gate_model)
    key = read_key(api_key_file)
    check_reach(host, key, allow_anyone=allow_anyone)
    # Bound before models load, so that a port in use is reported at once. vLLM binds it itself.
    place = bind(host, port)
    if running.engine == "vllm":
        place.close()
    loading(reward_model, gate_model, model, draft_model)
    if method is not None:
        METHODS.get(method)
    try:
        from rewardsteer.serving.run import run
        from rewardsteer.serving.service import Service
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Serving needs {error.name}, which is not installed; run "
            "pip install 'rewardsteer[serve]'."
        ) from error

    _check_second_models(choice, reward_model, draft_model, gate_model)
    if running.engine == "vllm":
        from rewardsteer.serving.vllm_server import replace_by_vllm

        replace_by_vllm(
            model, _folder(reward_model, of_kind), method=method, name=name, host=host, port=port,
            key=key, device=running.device, dtype=running.dtype,
            reward_device=running.reward_device, reward_dtype=running.reward_dtype,
            options=choice.vllm, template=written, limits=limit or [], **settings,
        )
    models = _load(
        choice, model, reward_model, limits, method=method, name=name, template=written,
        settings=settings, running=running, of_kind=of_kind, draft_model=draft_model,
        gate_model=gate_model,
    )
    run(Service(models, limits), place, host=host, key=key)


def _folder(reward_model: str | None, of_kind: dict[str, Any]) -> Path | None:
    """The reward model's folder, for an engine that loads it itself; raises `ConfigError`."""
    from rewardsteer.errors import ConfigError

    if is_address(reward_model) or any(value is not None for value in of_kind.values()):
        raise ConfigError(
            "vLLM loads folders of rewardsteer itself; leave out --kind and --kind-option and pass "
            "a folder, or serve with --engine transformers."
        )
    return None if reward_model is None else Path(reward_model)


def _check_models(
    choice: EngineChoice, model: str | None, reward_model: str | None, kind: str | None
) -> None:
    """Raise `ConfigError` if the models cannot be served, `CheckpointError` if one is missing."""
    from rewardsteer.errors import ConfigError

    if choice.by_address and choice.source is None:
        raise ConfigError(
            "A server in front of another one writes prompts itself: pass --tokenizer, the "
            "policy's folder or hub name."
        )
    if model is None and reward_model is None and not choice.by_address:
        raise ConfigError("Expected a policy, a reward model or both; pass --model or "
                          "--reward-model.")
    check_kind(kind)
    check_model(choice.source)
    check_reward_model(reward_model)


def _check_second_models(
    choice: EngineChoice, reward_model: str | None, draft_model: str | None,
    gate_model: Path | None,
) -> None:
    """Check the draft model and the gate's reward model before anything loads."""
    from rewardsteer.errors import ConfigError

    for option, given, instead in (
        ("--draft-model", draft_model, ", or with --engine openai in front of a router "
         "(--base-url) to vLLM's servers of both policies"),
        ("--gate-model", gate_model, ""),
    ):
        if given is None:
            continue
        if choice.name == "vllm":
            raise ConfigError(
                f"{option} is not for --engine vllm, whose own server runs one policy and the "
                f"reward model that guides it; serve with --engine transformers{instead}."
            )
        if choice.source is None or reward_model is None:
            raise ConfigError(
                f"{option} is for methods with a policy and a reward model; pass --model and "
                "--reward-model, or leave it out."
            )
    choice.check_second_models(None, draft_model, gate_model)


def _load(
    choice: EngineChoice, model: str | None, reward_model: str | None, limits: "ServingConfig", *,
    method: str | None, name: str | None, template: "Template | None", settings: dict[str, Any],
    running: EngineOptions, of_kind: dict[str, Any], draft_model: str | None,
    gate_model: Path | None,
) -> "ServedModels":
    """Load the models, after the checks that need only their cards; ``of_kind`` has the reward
    model's kind and its options."""
    from rewardsteer.configuration import load_config
    from rewardsteer.decoding.config import DecodingConfig
    from rewardsteer.decoding.crossing import check_crossing
    from rewardsteer.decoding.defaults import what_is_taken
    from rewardsteer.decoding.methods import compares
    from rewardsteer.models.checkpoint import fingerprint
    from rewardsteer.serving.models import ServedModels

    # A server of rewards alone needs no decoding method.
    method, told = choose_method(
        method if choice.source else method or "none", reward_model, of_kind["kind"], choice.name
    )
    say(told)
    check_used(method, settings)
    defaults = load_config(DecodingConfig, settings | {"method": method})
    engine = drafter = None
    scorer, goals = _load_scorer(
        reward_model, running, template=template, pairs=compares(method), **of_kind
    )
    if choice.source is not None:
        check_crossing(method, scorer, choice.tokenizer, choice.kind)
        places = defaults.model_copy(update={"batch_size": limits.places})
        engine = choice.open(places)
        drafter = None if draft_model is None else choice.second(draft_model).open(places)
        if told := what_is_taken(defaults, engine.settings):
            typer.echo(told, err=True)
    # A reward model behind an address has no local folder.
    name = name or (engine.model_name if engine else "")
    folder = Path(model) if model and not choice.by_address and Path(model).is_dir() else None
    known = folder is not None and any(folder.glob("*.safetensors"))
    served = ServedModels(
        engine, choice.tokenizer, scorer, defaults, limits, template=template, goals=goals,
        name=name or (folder.resolve().name if folder else model or "policy"),
        reward_name=_reward_name(reward_model),
        fingerprint=fingerprint(folder) if folder and known else "", drafter=drafter,
        scout=load_gate_model(gate_model, choice, running),
    )
    show_template(
        served.template, str(choice.source if served.renderer is choice.tokenizer else reward_model)
    )
    served.rename()
    return served


def _load_scorer(
    reward_model: str | None, running: EngineOptions, **options: Any
) -> tuple[Any, Any]:
    """The reward model and its goal states; None without a reward model or goal states."""
    from rewardsteer.devices import parse_dtype
    from rewardsteer.goals.files import goals_beside
    from rewardsteer.models.kinds import load_scorer

    if reward_model is None:
        return None, None
    scorer = load_scorer(
        reward_model, device=running.reward_device or running.device,
        dtype=parse_dtype(running.reward_dtype), **options,
    )
    return scorer, goals_beside(Path(reward_model), scorer) if scorer.reads_tokens else None


def _reward_name(reward_model: str | None) -> str:
    """The name of the reward model for clients."""
    if reward_model is None or is_address(reward_model):
        return "reward"
    return Path(reward_model).resolve().name
