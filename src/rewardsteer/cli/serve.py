"""``rewardsteer serve``: guided generation and rewards over HTTP."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rewardsteer.cli.devices import (
    DeviceMap,
    Dtype,
    PolicyDevice,
    RewardDevice,
    RewardDtype,
    parse_device_map,
)
from rewardsteer.cli.engines import (
    AnyEngine,
    BaseUrl,
    KeyEnv,
    Tokenizer,
    VllmOptions,
    openai_options,
    vllm_options,
)
from rewardsteer.cli.generate_options import those_given
from rewardsteer.cli.starting import check_model, check_reward_model, loading
from rewardsteer.cli.template import TemplateOption, read_template, show_template
from rewardsteer.decoding.engines.registry import ENGINES
from rewardsteer.decoding.methods import METHODS
from rewardsteer.devices import check_dtypes

if TYPE_CHECKING:
    from rewardsteer.data.template import Template
    from rewardsteer.serving.config import ServingConfig
    from rewardsteer.serving.models import ServedModels

Model = Annotated[
    str | None, typer.Option(help="Policy: a causal LM folder or hub name; none: rewards alone.")
]
RewardModel = Annotated[
    Path | None, typer.Option(help="Reward model folder (from 'rewardsteer train').")
]
MethodName = Annotated[
    str | None,
    typer.Option(
        help=f"Method of requests that name none: {', '.join(METHODS.names())}, or your own as "
        "package.module:Class. Default: what the reward model was trained for; none without one."
    ),
]
Weight = Annotated[float, typer.Option(help="Weight of requests that give none.")]
TopK = Annotated[
    int | None,
    typer.Option(help="top_k of requests that give none; default: the policy's own, else all."),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        help="Temperature of requests that give none; 0: the best token. Default: the policy's "
        "own, else 1."
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(help="top_p of requests that give none; default: the policy's own, else 1."),
]
MinP = Annotated[
    float | None,
    typer.Option(help="min_p of requests that give none; default: the policy's own, else 0."),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(
        help="repetition_penalty of requests that give none; default: the policy's own, else 1."
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="A string that ends responses to requests that give none; repeatable."),
]
Name = Annotated[
    str | None, typer.Option(help="What clients call the policy; default: its folder's name.")
]
Host = Annotated[str, typer.Option(help="Address to listen on; the default is this machine alone.")]
Port = Annotated[int, typer.Option(help="Port; 0 takes a free one and tells it.")]
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
        "(docs/serving.md).",
    ),
]


def serve_command(
    model: Model = None, reward_model: RewardModel = None, method: MethodName = None,
    weight: Weight = 1.0, top_k: TopK = None, top_p: TopP = None, min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None, stop: Stop = None,
    temperature: Temperature = None, name: Name = None,
    template: TemplateOption = None, host: Host = "127.0.0.1", port: Port = 8000,
    api_key_file: KeyFile = None, allow_anyone: Anyone = False, limit: Limits = None,
    device: PolicyDevice = "auto", device_map: DeviceMap = None,
    reward_device: RewardDevice = None, dtype: Dtype = None, reward_dtype: RewardDtype = None,
    engine: AnyEngine = "transformers", vllm_option: VllmOptions = None, base_url: BaseUrl = None,
    tokenizer: Tokenizer = None, key_env: KeyEnv = None,
) -> None:
    """Serve guided generation and rewards over HTTP, in OpenAI's form, until a signal says to end.

    The API key is never given on the command line, where others could read it.
    """
    from rewardsteer.configuration import load_config
    from rewardsteer.errors import ConfigError
    from rewardsteer.serving.config import ServingConfig
    from rewardsteer.serving.reach import bind, check_reach, read_key

    options, written = vllm_options(engine, vllm_option or [], ENGINES.names()), read_template(
        template
    )
    upstream = _upstream(engine, model, reward_model, base_url, tokenizer, key_env)
    limits = load_config(ServingConfig, {}, limit or [])
    check_dtypes(dtype, reward_dtype)
    spread = parse_device_map(device_map, device, engine)
    if method is not None:
        METHODS.check(method)
    check_model(model if upstream is None else tokenizer)
    check_reward_model(reward_model)
    key = read_key(api_key_file)
    check_reach(host, key, allow_anyone=allow_anyone)
    # Before models load: that the port is taken is told at once. vLLM binds it itself.
    place = bind(host, port)
    if options is not None:
        place.close()
    loading(reward_model, model)
    if method is not None:
        METHODS.get(method)
    sampling = those_given(
        top_k=top_k, temperature=temperature, top_p=top_p, min_p=min_p,
        repetition_penalty=repetition_penalty, stop=stop,
    )
    try:
        from rewardsteer.serving.run import run
        from rewardsteer.serving.service import Service
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Serving needs {error.name}, which is not installed; run "
            "pip install 'rewardsteer[serve]'."
        ) from error

    if options is not None:
        from rewardsteer.serving.vllm_server import replace_by_vllm

        replace_by_vllm(
            model, reward_model, method=method, name=name, host=host, port=port, key=key,
            dtype=dtype, reward_device=reward_device, reward_dtype=reward_dtype, options=options,
            weight=weight, template=written, device=device, limits=limit or [], **sampling,
        )
    served = _load(
        model, reward_model, limits, method=method, name=name, template=written,
        settings={"weight": weight, **sampling},
        devices=(device, reward_device or device), dtypes=(dtype, reward_dtype),
        spread=spread, upstream=upstream,
    )
    run(Service(served, limits), place, host=host, key=key)


def _upstream(
    engine: str, model: str | None, reward_model: Path | None, base_url: str | None,
    tokenizer: str | None, key_env: str | None,
) -> dict[str, Any] | None:
    """The server that is asked for the policy's tokens; None: it is run here.

    Raises:
        ConfigError: neither a policy nor a reward model; an option is missing, or not for this
            engine.
    """
    from rewardsteer.errors import ConfigError

    # A server of rewards alone has no policy.
    policy = model if engine == "openai" else model or "none"
    upstream = openai_options(engine, policy, base_url, tokenizer, key_env)
    if upstream is not None and upstream["tokenizer"] is None:
        raise ConfigError(
            "A server in front of another one writes prompts itself: pass --tokenizer, the "
            "policy's folder or hub name."
        )
    if model is None and reward_model is None and upstream is None:
        raise ConfigError("Expected a policy, a reward model or both; pass --model or "
                          "--reward-model.")
    return upstream


def _load(
    model: str | None, reward_model: Path | None, limits: "ServingConfig", *, method: str | None,
    name: str | None, template: "Template | None", settings: dict[str, Any],
    devices: tuple[str, str], dtypes: tuple[str | None, str | None], spread: dict[str, Any],
    upstream: dict[str, Any] | None = None,
) -> "ServedModels":
    """The models, after the checks that need only their cards."""
    from rewardsteer.configuration import load_config
    from rewardsteer.data.template import writer_of
    from rewardsteer.decoding.config import DecodingConfig
    from rewardsteer.decoding.defaults import what_is_taken
    from rewardsteer.decoding.fitting import default_method
    from rewardsteer.decoding.policy import load_policy
    from rewardsteer.devices import parse_dtype
    from rewardsteer.models.checkpoint import fingerprint, load_tokenizer, read_card
    from rewardsteer.models.scorer import Scorer
    from rewardsteer.serving.models import ServedModels, goals_of

    if method is None:
        method = "none"
        if reward_model is not None:
            card = read_card(reward_model)
            method = default_method(card) if upstream is None else "best_of_n"
    defaults = load_config(DecodingConfig, settings | {"method": method})
    scorer = goals = policy = tokenizer = None
    if reward_model is not None:
        scorer = Scorer.load(
            reward_model, device=devices[1], dtype=parse_dtype(dtypes[1]), template=template
        )
        goals = goals_of(reward_model, scorer)
    if upstream is not None:
        policy = _in_front_of(upstream, limits)
        tokenizer, model, name = policy.tokenizer, None, name or policy.endpoint.model
    elif model is not None:
        tokenizer = load_tokenizer(model)
        policy = load_policy(
            model, device=devices[0], dtype=parse_dtype(dtypes[0]), **spread
        )
        told = what_is_taken(defaults, policy.generation_config)
        if told:
            typer.echo(told, err=True)
    folder = Path(model) if model and Path(model).is_dir() else None
    known = folder is not None and any(folder.glob("*.safetensors"))
    written, carrier = writer_of(template, tokenizer, scorer)
    own = model if upstream is None else upstream["tokenizer"]
    show_template(written, str(own if carrier is tokenizer else reward_model))
    return ServedModels(
        policy, tokenizer, scorer, defaults, limits, template=written, goals=goals,
        name=name or (folder.resolve().name if folder else model or "policy"),
        reward_name=reward_model.resolve().name if reward_model else "reward",
        fingerprint=fingerprint(folder) if folder and known else "",
    )


def _in_front_of(upstream: dict[str, Any], limits: "ServingConfig") -> Any:
    """The engine that asks another server."""
    from rewardsteer.decoding.defaults import policy_settings
    from rewardsteer.decoding.engines.endpoint import KEY_ENV, Endpoint
    from rewardsteer.decoding.engines.openai import OpenAIEngine
    from rewardsteer.models.checkpoint import load_tokenizer

    endpoint = Endpoint(
        upstream["url"], upstream["model"] or None, key_env=upstream.get("key_env", KEY_ENV)
    )
    tokenizer = load_tokenizer(upstream["tokenizer"])
    return OpenAIEngine(
        endpoint, tokenizer, policy_settings(upstream["tokenizer"]), places=limits.places
    )
