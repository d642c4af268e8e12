"""Answers to prompts by any decoding method, in order, each with what it cost."""

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from rewardsteer.data.template import Template, writer_of
from rewardsteer.decoding.answer import Method, Watch, answer
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.crossing import adapted, shares_tokens
from rewardsteer.decoding.default_method import method_of
from rewardsteer.decoding.defaults import with_defaults
from rewardsteer.decoding.engine import Engine
from rewardsteer.decoding.engines.registry import check_abilities
from rewardsteer.decoding.engines.transformers.admission import Bounds
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine
from rewardsteer.decoding.fitting import check_gate
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.methods import METHODS, accepts_goal
from rewardsteer.decoding.prompts import Prepared, prepare, show_request
from rewardsteer.decoding.requests import Request, as_requests
from rewardsteer.decoding.second_models import check_drafter, check_scout
from rewardsteer.decoding.strategies.base import Direct, Strategy
from rewardsteer.errors import RewardsteerError
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.records import Generation, Prompt


def build_method(
    config: DecodingConfig, scorer: Any = None, goal: GoalState | None = None, *,
    scout: Any = None, drafter: Engine | None = None,
) -> Method:
    """The method named in the settings.

    Args:
        config: settings.
        scorer: a `rewardsteer.models.scorer.Scorer`; None for methods that need none.
        goal: a goal state, for the methods that want or take one; the others never see it.
        scout: a second reward model, with a vocabulary head; the gate ``kl`` asks it at every token
            instead of the first.
        drafter: an engine with a second, smaller policy, for the methods that want one.

    Raises:
        ConfigError: unknown name, or settings that the method cannot use.
        MismatchError: no reward model, or one with the wrong head or training; no goal state, or
            one of another reward model.
    """
    goals = [goal] if accepts_goal(config.method) else []
    config = with_defaults(config)
    method: Method = METHODS.get(config.method)(scorer, config, *goals)
    check_gate(config, scout)
    if scout is not None and isinstance(method, LogitsGuide):
        own = config.model_copy(update={"method": method_of(scout).name})
        method.scout = METHODS.get(own.method)(scout, own)
    if isinstance(method, Strategy):
        method.drafter = drafter
    return method


def generate(
    policy: Any, tokenizer: Any, prompts: Sequence[Prompt | Request], method: Method,
    config: DecodingConfig, *, template: Template | None = None, label: str = "",
    watch: Watch | None = None,
) -> Generator[Generation, None, None]:
    """Answer prompts; everything is checked before the first forward pass.

    Args:
        policy: a causal LM; the reward model may be on another device and of another dtype.
        tokenizer: the policy's.
        prompts: text, conversations or requests.
        method: from `build_method`.
        config: settings.
        template: how prompts are written; default: the reward model's, else the chat template
            where the tokenizer has one, else the plain one.
        label: ``method`` field of the results; default: the method's name.
        watch: called with every sample when it begins.

    Yields:
        generations in the order of the prompts, each once it and those before it are finished. A
        row that fails (its prompt cannot be written or has unknown token ids, its logits or
        rewards are no numbers) has ``error`` set and ends alone; the others go on.

    Raises:
        MismatchError: the tokenizers differ, and the method is a guide that cannot work with two.
        ConfigError: ``top_k`` exceeds the vocabulary; out of memory.
        DataError: repeated ids, or a prompt that is too long.
    """
    engine = TransformersEngine(policy, tokenizer, Bounds(places=config.batch_size))
    return generate_by(
        engine, prompts, method, config, template=template, label=label, watch=watch
    )


def generate_by(
    engine: Engine, prompts: Sequence[Prompt | Request], method: Method, config: DecodingConfig, *,
    template: Template | None = None, label: str = "",
    watch: Watch | None = None,
) -> Generator[Generation, None, None]:
    """As `generate`, by any engine.

    Raises:
        ConfigError: the engine cannot do what the method or the settings need.
    """
    config = engine.complete(config)
    method = checked(engine, method, config)
    scorer, requests = method.scorer, as_requests(prompts)
    drafter: Engine | None = method.drafter
    engines = [engine, *([] if drafter is None else [drafter])]
    if engine.writes_prompts:
        template = Template(kind="text")
        ready = [Prepared(one, show_request(one, template, None)) for one in requests]
    else:
        if scorer is not None and not shares_tokens(engine.tokenizer, scorer):
            scorer = None
        template, renderer = writer_of(template, engine.tokenizer, scorer)
        limits = {"policy": engine.position_limit,
                  "reward model": getattr(scorer, "position_limit", None)}
        if drafter is not None:
            limits["second policy"] = drafter.position_limit
        ready = prepare(
            requests, template, renderer, engine.tokenizer, limits, config,
            vocabulary=min(one.readable for one in engines),
        )
        longest = max((len(one.ids) for one in ready), default=0) + config.max_new_tokens
        if drafter is not None:
            # The drafter starts first: a reward model moves to the device after both policies.
            drafter.begin(Direct(None, config), config, longest)
        engine.begin(method, config, longest)
    return answer(engine, ready, method, config, template, label or method.name, watch)


def checked(engine: Engine, method: Method, config: DecodingConfig) -> Method:
    """The method, adapted to the engine's policy; nothing runs yet.

    Args:
        engine: runs the policy.
        method: from `build_method`, with its second policy.
        config: settings with all defaults filled in.

    Raises:
        ConfigError: the engine cannot do what the method or the settings need.
        MismatchError: policy, second policy and reward models have tokens that do not fit.
    """
    check_abilities(engine, method)
    method = adapted(method, engine)
    check_drafter(method, engine)
    check_scout(method, engine.tokenizer)
    for one in (engine, method.drafter):
        if one is not None:
            one.check(method, config)
    return method


def require_answers(
    results: Generator[Generation, None, None]
) -> Generator[Generation, None, None]:
    """Pass results on, for callers that need an answer to every prompt.

    Raises:
        RewardsteerError: one failed; says why.
    """
    with closing(results):
        for result in results:
            if result.error is not None:
                raise RewardsteerError(result.error)
            yield result
