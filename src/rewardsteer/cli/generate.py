"""``rewardsteer generate``: answer prompts by a decoding method."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rewardsteer.cli import generate_options as option
from rewardsteer.cli.answers_file import answered, refuse_taken, settings_file
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
from rewardsteer.cli.starting import (
    check_model,
    check_reward_model,
    check_writable,
    counted,
    loading,
    say,
)
from rewardsteer.cli.streams import is_standard_output, readable
from rewardsteer.cli.template import TemplateOption, read_template, show_template
from rewardsteer.decoding.engines.registry import ENGINES
from rewardsteer.decoding.methods import METHODS, takes_no_reward_model

if TYPE_CHECKING:
    from rewardsteer.data.template import Template
    from rewardsteer.decoding.config import DecodingConfig
    from rewardsteer.decoding.requests import Request
    from rewardsteer.goals.goal_state import GoalState


def generate_command(
    output: option.Output, model: option.Model = None, prompts: option.Prompts = None,
    prompt: option.Prompt = None, method: option.MethodName = None,
    reward_model: option.RewardModels = None, goal: option.GoalFile = None,
    goal_name: option.GoalName = None, weight: option.Weights = None,
    weight_schedule: option.WeightSchedule = "constant", weight_end: option.WeightEnd = None,
    target_kl: option.TargetKl = None, max_kl: option.MaxKl = None, top_k: option.TopK = None,
    top_p: option.TopP = None, min_p: option.MinP = None,
    repetition_penalty: option.RepetitionPenalty = None, stop: option.Stop = None,
    temperature: option.Temperature = None, greedy: option.Greedy = False, n: option.Samples = 8,
    beam: option.Beam = 4, branches: option.Branches = 2,
    step_separator: option.StepSeparator = "\n", step_tokens: option.StepTokens = 52,
    max_steps: option.MaxSteps = 16, max_new_tokens: option.MaxNewTokens = 64,
    batch_size: option.BatchSize = 8, seed: option.Seed = 0, overrides: option.Settings = None,
    limit: option.Limit = None, template: TemplateOption = None, device: PolicyDevice = "auto",
    device_map: DeviceMap = None, reward_device: RewardDevice = None, dtype: Dtype = None,
    reward_dtype: RewardDtype = None, share_backbone: option.ShareBackbone = False,
    engine: AnyEngine = "transformers", vllm_option: VllmOptions = None,
    base_url: BaseUrl = None, tokenizer: Tokenizer = None, key_env: KeyEnv = None,
    resume: option.Resume = False, overwrite: option.Overwrite = False,
) -> None:
    """Answer prompts by a decoding method, with the cost of each answer."""
    from rewardsteer.configuration import load_config
    from rewardsteer.decoding.config import DecodingConfig

    folders, weights, written = reward_model or [], weight or [], read_template(template)
    server = openai_options(engine, model, base_url, tokenizer, key_env)
    source = model if server is None else server["tokenizer"]  # What is known on this side.
    check_model(source)
    check_reward_model(*folders)
    method = method or _default_method(folders)
    _refuse_unused(method, folders, weights)
    # One weight is the run's; those of several reward models are within their sum.
    single = weights[0] if weights and len(folders) < 2 else 1.0
    config = load_config(
        DecodingConfig,
        {
            "method": method, "mode": "greedy" if greedy else "sample", "weight": single,
            "weight_schedule": weight_schedule, "weight_end": weight_end, "target_kl": target_kl,
            "max_kl": max_kl, "n": n, "seed": seed, "max_new_tokens": max_new_tokens,
            "batch_size": batch_size, "beam": beam, "branches": branches, "max_steps": max_steps,
            "step_separator": step_separator, "step_tokens": step_tokens, **option.those_given(
                top_k=top_k, temperature=temperature, top_p=top_p, min_p=min_p, stop=stop,
                repetition_penalty=repetition_penalty,
            ),
        },
        overrides or [],
    )
    METHODS.check(config.method)
    weights = _check_weights(config, len(folders), weights)
    vllm = vllm_options(engine, vllm_option or [], ENGINES.names())
    spread = parse_device_map(device_map, device, engine)
    requests = _requests(prompts, prompt or [], limit)
    _check_files(output, goal, resume=resume, overwrite=overwrite)
    loading(*folders, source)
    config = config if source is None else _complete(config, source)
    goal_state = _load_goal(goal, goal_name, config, folders[0] if folders else None)
    if share_backbone:
        _check_sharing(folders, engine, reward_device, reward_dtype, device_map)
    place = reward_device or (device if vllm is None else "cpu")  # Until vLLM is there.
    scorer = _load_scorer(
        folders, weights, config, goal_state, place, reward_dtype, written,
        policy={"source": model, "device": device, "dtype": dtype} if share_backbone else None,
    )
    texts, written = _writing(written, source, scorer, folders, known=server is None)
    settings = config.model_dump(mode="json") | {
        "model": model,
        "reward_model": ", ".join(map(str, folders)) or None,
        "reward_weights": weights if len(folders) > 1 else None,
        "reward_fingerprint": getattr(scorer, "fingerprint", ""),
        "goal": goal_state and goal_state.describe(), "dtype": dtype, "reward_dtype": reward_dtype,
        "template": written and written.model_dump(mode="json"), **_of_engine(engine, server),
    }
    _write(
        config, requests, output, settings, scorer, goal_state, written, resume=resume,
        policy={"source": model, "device": device, "dtype": dtype, "tokenizer": texts} | spread,
        vllm=None if vllm is None else vllm | {
            "device": device, "reward_dtype": reward_dtype, "reward_device": reward_device,
        },
        server=server and server | {"tokenizer": texts},
    )


def _of_engine(engine: str, server: dict[str, Any] | None) -> dict[str, Any]:
    """What settings beside results say of the engine."""
    if engine == "transformers":
        return {}
    where = {} if server is None else {
        "base_url": server["url"], "tokenizer": server["tokenizer"]
    }
    return {"engine": engine, **where}


def _complete(config: "DecodingConfig", model: str) -> "DecodingConfig":
    """The settings, with the policy's own where they are open; says what those are."""
    from rewardsteer.decoding.defaults import policy_settings, what_is_taken, with_defaults

    settings = policy_settings(model)
    told = what_is_taken(config, settings)
    if told:
        typer.echo(told, err=True)
    return with_defaults(config, settings)


def _default_method(folders: list[Path]) -> str:
    """What the (first) reward model was trained for; none without one."""
    from rewardsteer.decoding.fitting import default_method
    from rewardsteer.models.checkpoint import read_card

    if not folders:
        return "none"
    card = read_card(folders[0])
    return default_method(card)


def _refuse_unused(method: str, folders: list[Path], weights: list[float]) -> None:
    """Raise `ConfigError` where what is given would be without effect."""
    from rewardsteer.errors import ConfigError

    for given, name in ((folders, "--reward-model"), (weights, "--weight")):
        if given and takes_no_reward_model(method):
            raise ConfigError(
                f"{name} is not used by --method {method}; choose a method that is guided, or "
                f"leave {name} out."
            )


def _writing(
    template: "Template | None", model: str | None, scorer: Any, folders: list[Path], *,
    known: bool,
) -> "tuple[Any, Template | None]":
    """The policy's tokenizer, and how its prompts are written, which is printed; where that is
    ``known`` before there is an engine."""
    from rewardsteer.data.template import writer_of
    from rewardsteer.models.checkpoint import load_tokenizer

    tokenizer = None if model is None else load_tokenizer(model)
    if model is None or not known:
        return tokenizer, template
    written, carrier = writer_of(template, tokenizer, scorer)
    show_template(written, model if carrier is tokenizer else str(folders[0]))
    return tokenizer, written


def _requests(path: Path | None, texts: list[str], limit: int | None) -> "list[Request]":
    from rewardsteer.decoding.requests import as_requests, read_requests
    from rewardsteer.errors import ConfigError

    if (path is None) == (not texts):
        raise ConfigError("Give either --prompts (a file) or --prompt (a text).")
    if path is None:
        return as_requests(texts)[:limit]
    with readable(path) as place:
        return read_requests(place, limit=limit)


def _check_sharing(
    folders: list[Path], engine: str, reward_device: str | None, reward_dtype: str | None,
    device_map: str | None,
) -> None:
    from rewardsteer.errors import ConfigError

    if len(folders) != 1 or engine != "transformers" or any(
        (reward_device, reward_dtype, device_map)
    ):
        raise ConfigError(
            "--share-backbone takes one --reward-model, the transformers engine and no "
            "--reward-device, --reward-dtype or --device-map: the weights are the policy's."
        )


def _check_weights(
    config: "DecodingConfig", models: int, weights: list[float]
) -> list[float]:
    """A weight for each reward model, 1 where none was given.

    Raises:
        ConfigError: another number of weights than of reward models, or what only a method that
            adds rewards to next-token logits can use.
    """
    from rewardsteer.decoding.config import check_weights
    from rewardsteer.decoding.fitting import adding_methods
    from rewardsteer.decoding.methods import adds_rewards
    from rewardsteer.errors import ConfigError

    controls = (config.weight_end, config.target_kl, config.max_kl)
    steered = models > 1 or any(control is not None for control in controls)
    if steered and not adds_rewards(config.method):
        raise ConfigError(
            f"The method {config.method!r} takes one reward model and no --weight-schedule, "
            f"--target-kl or --max-kl; use {adding_methods()}."
        )
    if models > 1 or len(weights) > 1:
        check_weights(models, weights or [1.0] * models)
    return weights or [1.0] * models


def _check_files(output: Path, goal: Path | None, *, resume: bool, overwrite: bool) -> None:
    """Refuse, before anything is loaded, an output that is taken and a goal that is no goal file.

    Raises:
        DataError: no such goal file.
        OutputError: the output is there already or cannot be written.
    """
    from rewardsteer.goals.places import goal_file

    if not is_standard_output(output):
        refuse_taken(output, resume=resume, overwrite=overwrite)
        check_writable(output)
    if goal is not None:
        goal_file(goal)


def _load_goal(
    source: Path | None, name: str | None, config: "DecodingConfig", reward_model: Path | None
) -> "GoalState | None":
    """The goal state for a method that wants one; None when there is nowhere to look.

    Raises:
        ConfigError: a goal was given to a method that uses none.
    """
    from rewardsteer.decoding.fitting import goal_methods
    from rewardsteer.decoding.methods import wants_goal
    from rewardsteer.errors import ConfigError
    from rewardsteer.goals.files import load_goal
    from rewardsteer.models.checkpoint import read_card

    if not wants_goal(config.method):
        if source or name:
            raise ConfigError(
                f"The method {config.method!r} uses no goal state; leave out --goal and "
                f"--goal-name, or use the method {goal_methods()}."
            )
        return None
    if source is None and reward_model is not None:
        # A folder that is missing is told as such, not as one without goals.
        read_card(reward_model)
    where = source or reward_model
    return None if where is None else load_goal(where, name)


def _load_scorer(
    folders: list[Path], weights: list[float], config: "DecodingConfig", goal: "GoalState | None",
    device: str, dtype: str | None, template: "Template | None",
    policy: dict[str, Any] | None = None,
) -> Any:
    """The reward model, several as one, after the checks that need only their cards; None when none
    was given. With a policy, on its weights."""
    from types import SimpleNamespace

    from rewardsteer.decoding.ensemble import RewardEnsemble
    from rewardsteer.decoding.generate import build_method
    from rewardsteer.devices import parse_dtype
    from rewardsteer.models.checkpoint import read_card
    from rewardsteer.models.scorer import Scorer

    if not folders:
        build_method(config, None, goal)
        return None
    cards = [read_card(folder) for folder in folders]
    # A method looks at no more than this when it is made, so misfits show before weights load; a
    # goal is compared with the weights, so with one it waits for them.
    if goal is None:
        stated = [
            SimpleNamespace(head_kind=card.head.kind, objective=card.objective, name=str(folder))
            for folder, card in zip(folders, cards, strict=True)
        ]
        build_method(config, SimpleNamespace(members=stated))
    if policy is not None:
        from rewardsteer.models.shared_backbone import SharedScorer

        return SharedScorer(_load_policy(policy), policy["source"], folders[0])
    kind = parse_dtype(dtype)
    scorers = [
        Scorer.load(folder, device=device, dtype=kind, template=template) for folder in folders
    ]
    return scorers[0] if len(scorers) == 1 else RewardEnsemble(scorers, weights)


def _load_policy(policy: dict[str, Any]) -> Any:
    from rewardsteer.decoding.policy import load_policy
    from rewardsteer.devices import parse_dtype

    spread = {name: policy[name] for name in ("device_map",) if name in policy}
    return load_policy(
        policy["source"], device=policy["device"], dtype=parse_dtype(policy["dtype"]), **spread
    )


def _write(
    config: "DecodingConfig", requests: list["Request"], output: Path, settings: dict[str, Any],
    scorer: Any, goal: "GoalState | None", template: "Template | None", *, resume: bool,
    policy: dict[str, Any], vllm: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
) -> None:
    """Generate what is missing in the output, appending after every batch."""
    from rewardsteer.decoding.generate import build_method, generate
    from rewardsteer.errors import RewardsteerError
    from rewardsteer.models.compatibility import check_vocabularies
    from rewardsteer.outputs import append_jsonl, write_json, write_text
    from rewardsteer.progress import progress_bar

    method = build_method(config, scorer, goal)
    tokenizer = policy["tokenizer"]
    if method.scorer is not None and server is None:
        check_vocabularies(tokenizer, method.scorer)
    done = answered(output, settings) if resume and not is_standard_output(output) else set()
    missing = [request for request in requests if request.id not in done]
    if not missing:
        typer.echo(f"all {len(requests)} prompts are answered in {output}", err=True)
        return
    if vllm is not None:
        from rewardsteer.decoding.engines import vllm_engine

        assert template is not None, "it is written on this side"
        results = vllm_engine.generate(
            policy["source"], tokenizer, missing, method, config, template=template,
            dtype=policy["dtype"] or "auto", **vllm,
        )
    elif server is not None:
        from rewardsteer.decoding.engines import openai

        results = openai.generate(
            server["url"], missing, method, config, template=template,
            **{name: value for name, value in server.items() if name != "url"},
        )
    else:
        model = getattr(scorer, "policy", None) or _load_policy(policy)
        results = generate(model, tokenizer, missing, method, config, template=template)
    # Everything that can be refused was refused: only now is the output touched.
    on_screen = is_standard_output(output)
    if not on_screen:
        if not resume or not output.exists():
            write_text(output, "")
        write_json(settings_file(output), settings)
    failed = 0
    # Closed where writing fails too: what is being generated ends there and then.
    with closing(results), progress_bar("generating", "prompts") as announce:
        announce(0, len(missing))
        for number, result in enumerate(results, start=1):
            if on_screen:
                typer.echo(result.model_dump_json())
            else:
                append_jsonl(output, [result.model_dump_json()])
            failed += result.error is not None
            announce(number, len(missing))
    before = f" ({counted(len(done), 'earlier one')} kept)" if done else ""
    say(f"{counted(len(missing) - failed, 'generation')} written to {output}{before}")
    if failed:
        raise RewardsteerError(
            f"{failed} of {len(missing)} prompts got no answer; the field 'error' of their lines "
            f"in {output} says why. Mend what it names, then --resume tries them again."
        )
