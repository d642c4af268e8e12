"""``rewardsteer generate``: answer prompts by a decoding method."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rewardsteer.addresses import is_address
from rewardsteer.cli import generate_options as option
from rewardsteer.cli.answers_file import answered, refuse_taken, settings_file
from rewardsteer.cli.decoding_options import check_used, decoding_options
from rewardsteer.cli.engines import EngineOptions, choose_engine, engine_options
from rewardsteer.cli.kind import KindOption, KindOptions, kind_options
from rewardsteer.cli.reward_models import (
    Parts,
    check_sharing,
    choose_method,
    load_gate_model,
    load_goal_state,
    load_reward_models,
)
from rewardsteer.cli.starting import (
    check_model,
    check_reward_model,
    check_writable,
    counted,
    loading,
    refuse_address,
    say,
)
from rewardsteer.cli.streams import is_standard_output, place_name, readable
from rewardsteer.cli.template import TemplateOption, read_template, show_template
from rewardsteer.decoding.engines.choice import EngineChoice
from rewardsteer.decoding.methods import METHODS, is_guide, takes_no_reward_model

if TYPE_CHECKING:
    from rewardsteer.data.template import Template
    from rewardsteer.decoding.config import DecodingConfig
    from rewardsteer.decoding.requests import Request


@engine_options
@decoding_options(
    "weight_schedule", "weight_end", "target_kl", "max_kl", "policy_power", "gate",
    "gate_threshold", "gate_share", "draft", "draft_tokens", "top_k", "top_p", "min_p",
    "repetition_penalty", "stop", "temperature", "n", "beam", "branches", "step_separator",
    "step_tokens", "max_steps", "max_new_tokens", "batch_size", "seed",
)
def generate_command(
    *, output: option.Output, model: option.Model = None, prompts: option.Prompts = None,
    prompt: option.Prompt = None, method: option.MethodName = None,
    reward_model: option.RewardModels = None, goal: option.GoalFile = None,
    goal_name: option.GoalName = None, weight: option.Weights = None, settings: dict[str, Any],
    greedy: option.Greedy = False, overrides: option.Settings = None, limit: option.Limit = None,
    template: TemplateOption = None, running: EngineOptions,
    share_backbone: option.ShareBackbone = False, resume: option.Resume = False,
    overwrite: option.Overwrite = False, gate_model: option.GateModel = None,
    draft_model: option.DraftModel = None, kind: KindOption = None, kind_option: KindOptions = None,
) -> None:
    """Answer prompts by a decoding method, with the cost of each answer."""
    folders, written = reward_model or [], read_template(template)
    choice = choose_engine(running, model)
    # Behind an address it is a name on the server.
    check_model(choice.source, None if choice.by_address else draft_model)
    check_reward_model(*folders, *([] if gate_model is None else [gate_model]))
    of_kind = {"kind": kind, **kind_options(kind_option)}
    method, told = choose_method(method, folders[0] if folders else None, kind)
    config, weights = _configure(
        method, folders, weight or [], {"mode": "greedy" if greedy else "sample"} | settings,
        overrides or [],
    )
    # The method's class, and torch with it, is only imported if a reward model is an address.
    if any(is_address(one) for one in folders) and (share_backbone or is_guide(config.method)):
        for folder in folders:
            refuse_address(folder, f"Responses by the method {config.method}")
    requests = _requests(prompts, prompt or [], limit)
    _check_files(output, goal, resume=resume, overwrite=overwrite)
    if share_backbone:
        check_sharing(folders, running)
    loading(*folders, choice.source)
    say(told if config.method == method else "")
    # Checked after the line about loading, because the methods' classes import torch.
    # The weights of several reward models make one reward of theirs, for any method.
    check_used(config.method, [*settings, *(["weight"] if weight and len(folders) < 2 else [])],
               [one.partition("=")[0] for one in overrides or []])
    config = _complete(config, choice)
    goal_state = load_goal_state(goal, goal_name, config, folders[0] if folders else None)
    scorer = load_reward_models(
        folders, weights, config, goal_state, choice, running, written,
        share_backbone=share_backbone, of_kind=of_kind,
    )
    choice.check_second_models(config, draft_model, gate_model)
    scout = load_gate_model(gate_model, choice, running)
    written = _writing(written, choice, scorer, folders)
    described = config.model_dump(mode="json") | {
        "model": model, "reward_model": ", ".join(folders) or None,
        "reward_weights": weights if len(folders) > 1 else None,
        "reward_fingerprint": getattr(scorer, "fingerprint", ""),
        "gate_model": gate_model and str(gate_model), "draft_model": draft_model,
        "goal": goal_state and goal_state.describe(), "dtype": running.dtype,
        "reward_dtype": running.reward_dtype,
        "template": written and written.model_dump(mode="json"), **choice.describe(),
    }
    _write(
        config, requests, output, described, Parts(scorer, scout, goal_state, draft_model), written,
        choice, resume=resume,
    )


def _configure(
    method: str, folders: list[str], weights: list[float], settings: dict[str, Any],
    overrides: list[str],
) -> "tuple[DecodingConfig, list[float]]":
    """The settings of the run, and a weight for each reward model (default: 1).

    Raises:
        ConfigError: the numbers of weights and reward models differ, or the method takes only one
            reward model.
    """
    from rewardsteer.configuration import load_config
    from rewardsteer.decoding.config import DecodingConfig, check_weights
    from rewardsteer.decoding.fitting import adding_methods
    from rewardsteer.decoding.methods import adds_rewards, judges_whole
    from rewardsteer.errors import ConfigError

    if folders and takes_no_reward_model(method):
        raise ConfigError(
            f"--reward-model is not used by --method {method}; choose a method that is guided, or "
            "leave --reward-model out."
        )
    # A single weight is the run's weight; several are the coefficients of the reward models' sum.
    single = weights[0] if weights and len(folders) < 2 else 1.0
    config = load_config(
        DecodingConfig, {"method": method, "weight": single, **settings}, overrides
    )
    METHODS.check(config.method)
    if len(folders) > 1 and not (adds_rewards(config.method) or judges_whole(config.method)):
        raise ConfigError(
            f"The method {config.method!r} takes one reward model, got {len(folders)}; use "
            f"{adding_methods()}."
        )
    if len(folders) < 2 and "ensemble_rule" in config.model_fields_set:
        raise ConfigError(
            f"An ensemble_rule is for several reward models, got {len(folders)}; leave it out, or "
            "give --reward-model more than once."
        )
    if len(folders) > 1 or len(weights) > 1:
        check_weights(len(folders), weights or [1.0] * len(folders))
    return config, weights or [1.0] * len(folders)


def _complete(config: "DecodingConfig", choice: EngineChoice) -> "DecodingConfig":
    """The settings, completed by the policy's own defaults; prints the latter."""
    from rewardsteer.decoding.defaults import policy_settings, what_is_taken, with_defaults

    if choice.source is None:
        return config
    settings = policy_settings(choice.source)
    if told := what_is_taken(config, settings):
        typer.echo(told, err=True)
    return with_defaults(config, settings)


def _writing(
    template: "Template | None", choice: EngineChoice, scorer: Any, folders: list[str]
) -> "Template | None":
    """The template of the policy's prompts, which is printed. With an address it depends on what
    the server accepts, so it is only decided once connected."""
    from rewardsteer.decoding.crossing import writer_between

    if choice.source is None or choice.by_address:
        return template
    written, carrier = writer_between(template, choice.tokenizer, scorer)
    show_template(written, choice.source if carrier is choice.tokenizer else folders[0])
    return written


def _requests(path: Path | None, texts: list[str], limit: int | None) -> "list[Request]":
    from rewardsteer.decoding.requests import as_requests, read_requests
    from rewardsteer.errors import ConfigError

    if (path is None) == (not texts):
        raise ConfigError("Give either --prompts (a file) or --prompt (a text).")
    if path is None:
        return as_requests(texts)[:limit]
    with readable(path) as place:
        return read_requests(place, limit=limit)


def _check_files(output: Path, goal: Path | None, *, resume: bool, overwrite: bool) -> None:
    """Refuse an existing output and an invalid goal file, before anything is loaded.

    Raises:
        DataError: no such goal file.
        OutputError: the output exists already or cannot be written.
    """
    from rewardsteer.goals.places import goal_file

    if not is_standard_output(output):
        refuse_taken(output, resume=resume, overwrite=overwrite)
        check_writable(output)
    if goal is not None:
        goal_file(goal)


def _write(
    config: "DecodingConfig", requests: list["Request"], output: Path, settings: dict[str, Any],
    parts: Parts, template: "Template | None", choice: EngineChoice, *, resume: bool,
) -> None:
    """Generate the rows missing in the output; appends them after every batch."""
    from rewardsteer.decoding.crossing import check_crossing
    from rewardsteer.decoding.generate import build_method, generate_by
    from rewardsteer.errors import RewardsteerError
    from rewardsteer.outputs import append_jsonl, write_json, write_text
    from rewardsteer.progress import progress_bar

    scorer, scout, goal, draft_model = parts
    method = build_method(config, scorer, goal, scout=scout)
    if not choice.by_address:
        # Checked here before the policy loads; the engine repeats the check.
        check_crossing(config.method, scorer, choice.tokenizer, choice.kind)
    done = answered(output, settings) if resume and not is_standard_output(output) else set()
    missing = [request for request in requests if request.id not in done]
    if not missing:
        typer.echo(f"all {len(requests)} prompts are answered in {output}", err=True)
        return
    if draft_model is not None:
        method.drafter = choice.second(draft_model).open(config)
    policy = {"policy": scorer.policy} if hasattr(scorer, "policy") else {}
    engine = choice.open(config, **policy)
    results = generate_by(engine, missing, method, config, template=template)
    # All checks are done; from here on the output is changed.
    on_screen = is_standard_output(output)
    if not on_screen:
        if not resume or not output.exists():
            write_text(output, "")
        write_json(settings_file(output), settings)
    failed = 0
    # Also closed if writing fails, so that generation stops at once.
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
    answers = counted(len(missing) - failed, "generation")
    say(f"{answers} written to {place_name(output)}{before}")
    if failed:
        raise RewardsteerError(
            f"{failed} of {len(missing)} prompts got no answer; the field 'error' of their lines "
            f"in {output} says why. Mend what it names, then --resume tries them again."
        )
