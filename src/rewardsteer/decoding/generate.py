"""Answers to prompts by any decoding method, in order, each with what it cost."""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from rewardsteer.data.render import render_prompt
from rewardsteer.data.template import Template
from rewardsteer.data.tokenize import encode_prompt
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.hf import HfEngine
from rewardsteer.decoding.guide import GroupGuide, Method, ResponseGuide, StepGuide, TokenGuide
from rewardsteer.decoding.loop import Row
from rewardsteer.decoding.memory import memory_told
from rewardsteer.decoding.methods import METHODS, wants_goal
from rewardsteer.decoding.requests import Request, as_requests
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.decoding.steps import search
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.models.compatibility import check_vocabularies
from rewardsteer.records import Cost, Generation, Prompt


def build_method(
    config: DecodingConfig, scorer: Any = None, goal: GoalState | None = None
) -> Method:
    """The method named in the settings.

    Args:
        config: settings.
        scorer: a `rewardsteer.models.scorer.Scorer`; None for methods that need none.
        goal: a goal state, for the methods that want one; the others never see it.

    Raises:
        ConfigError: unknown name, or settings that the method cannot use.
        MismatchError: no reward model, or one with the wrong head or training; no goal state, or
            one of another reward model.
    """
    goals = [goal] if wants_goal(config.method) else []
    method: Method = METHODS.get(config.method)(scorer, config, *goals)
    return method


def generate(
    policy: Any, tokenizer: Any, prompts: Sequence[Prompt | Request], method: Method,
    config: DecodingConfig, *, template: Template | None = None, label: str = "",
) -> Iterator[Generation]:
    """Answer prompts; everything is checked before the first forward pass.

    Args:
        policy: a causal LM; the reward model may be on another device and of another dtype.
        tokenizer: the policy's.
        prompts: text, conversations or requests.
        method: from `build_method`.
        config: settings.
        template: how prompts are written; default: the reward model's, else the plain one.
        label: ``method`` field of the results; default: the method's name.

    Yields:
        generations in the order of the prompts, each once it and those before it are finished.

    Raises:
        MismatchError: the two tokenizers differ.
        ConfigError: ``top_k`` exceeds the vocabulary; out of memory.
        DataError: repeated ids, or a prompt that is too long or empty.
        NonFiniteError: rewards or logits are no numbers.
    """
    engine = HfEngine(policy, tokenizer)
    requests = as_requests(prompts)
    scorer = method.scorer
    if scorer is not None:
        check_vocabularies(tokenizer, scorer)
    if config.top_k > engine.vocabulary_size:
        raise ConfigError(
            f"top_k = {config.top_k} exceeds the policy's vocabulary of {engine.vocabulary_size} "
            "tokens; lower it, or use 0 to draw from all."
        )
    template = template or getattr(scorer, "template", None) or Template()
    # A chat template is carried by a tokenizer: the reward model's, which was trained with it.
    renderer = tokenizer if scorer is None else scorer.tokenizer
    shown = [show_request(request, template, renderer) for request in requests]
    encoded = [encode_request(request, template, renderer, tokenizer) for request in requests]
    limits = {"policy": engine.position_limit}
    limits["reward model"] = getattr(scorer, "position_limit", None)
    check_lengths(requests, encoded, limits, config)
    ready = list(zip(requests, shown, encoded, strict=True))
    return stream(engine, ready, method, config, template, label or method.name)


def stream(
    engine: HfEngine, prompts: list[tuple[Request, str, list[int]]], method: Method,
    config: DecodingConfig, template: Template, label: str,
) -> Iterator[Generation]:
    """Generate; prompts are requests, their text for the results, their ids."""
    asked = [(request, ids) for request, _, ids in prompts]
    if method.level == "group":
        answers = _plan(engine, asked, method, config, template)
    elif method.level == "step":
        answers = _search(engine, asked, method, config)
    elif method.level == "response":
        answers = _choose(engine, asked, method, config)
    else:
        answers = _guide(engine, asked, method, config)
    with memory_told(config):
        for (request, shown, _), (row, reward) in zip(prompts, answers, strict=True):
            yield Generation(
                id=request.id, prompt=shown, completion=response_text(row, template, engine),
                method=label, token_ids=row.token_ids, finish_reason=row.finish_reason,
                seed=config.seed, reward=reward, cost=row.cost,
            )


# Prompts to answer, with their token ids; their answers, each with its reward where one is known.
_Asked = Sequence[tuple[Request, list[int]]]
_Answers = Iterator[tuple[Row, float | None]]


def _guide(
    engine: HfEngine, asked: _Asked, method: TokenGuide, config: DecodingConfig
) -> _Answers:
    for row in engine.stream(_rows(asked, 1, config), method, config):
        yield row, row.reward


def _plan(
    engine: HfEngine, asked: _Asked, method: GroupGuide, config: DecodingConfig, template: Template
) -> _Answers:
    for row in engine.groups(
        asked, method, config, lambda row: response_text(row, template, engine)
    ):
        yield row, row.reward


def _search(
    engine: HfEngine, asked: _Asked, method: StepGuide, config: DecodingConfig
) -> _Answers:
    plain = METHODS.get("none")(None, config)
    for some in _batches(asked, config.batch_size // (method.beam * method.branches)):
        rows = search(
            [request for request, _ in some], [ids for _, ids in some], method, config,
            tokenizer=engine.tokenizer, advance=lambda rows: engine.run(rows, plain, config),
        )
        for row in rows:
            yield row, None


def _choose(
    engine: HfEngine, asked: _Asked, method: ResponseGuide, config: DecodingConfig
) -> _Answers:
    """Draw the samples of all prompts, and keep what the method chooses of each, at the cost of
    all of them."""
    n, plain = method.samples, METHODS.get("none")(None, config)
    drawn = engine.stream(_rows(asked, n, config), plain, config)
    for some in _batches(asked, config.batch_size // n):
        groups = [list(islice(drawn, n)) for _ in some]
        began = time.perf_counter()
        choices = method.choose(
            [ids for _, ids in some], [[row.token_ids for row in group] for group in groups],
            [request.id for request, _ in some],
        )
        share = (time.perf_counter() - began) / len(groups)
        for group, choice in zip(groups, choices, strict=True):
            row, reads = group[choice.sample], choice.reads
            judging = Cost(
                rm_calls=reads.calls, rm_forwards=reads.forwards, rm_tokens=reads.tokens,
                seconds=share,
            )
            total = sum((one.cost for one in group), judging)
            row.cost = total.model_copy(update={"new_tokens": len(row.token_ids)})
            yield row, choice.reward


def _rows(asked: _Asked, samples: int, config: DecodingConfig) -> Iterator[Row]:
    for request, ids in asked:
        for sample in range(samples):
            yield Row(request.id, ids, row_generator(config.seed, request.id, sample))


def _batches(asked: _Asked, size: int) -> Iterator[_Asked]:
    """Prompts ``size`` at a time, or one by one where it is 0."""
    size = max(1, size)
    for begin in range(0, len(asked), size):
        yield asked[begin : begin + size]


def show_request(request: Request, template: Template, renderer: Any) -> str:
    """The prompt as results carry it: text as it was given, a conversation as rendered."""
    if isinstance(request.prompt, str):
        return request.prompt
    return render_prompt(request.prompt, template, renderer)


def encode_request(
    request: Request, template: Template, renderer: Any, tokenizer: Any
) -> list[int]:
    """Token ids of a prompt as the template writes it; raises `DataError` where there are none."""
    if request.prompt_ids is not None:
        ids = list(request.prompt_ids)
    else:
        text = render_prompt(request.prompt, template, renderer)
        ids = encode_prompt(text, template, tokenizer)
    if ids:
        return ids
    # A model answers what follows a token, so an empty prompt is the start of a text.
    for start in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if start is not None:
            return [start]
    raise DataError(
        f"The prompt {request.id!r} encodes to no token and the tokenizer has no begin- or "
        "end-of-text token to start from; give it some text."
    )


def check_lengths(
    requests: Sequence[Request], encoded: Sequence[list[int]], limits: dict[str, int | None],
    config: DecodingConfig,
) -> None:
    for request, ids in zip(requests, encoded, strict=True):
        for reader, limit in limits.items():
            if limit is not None and len(ids) + config.max_new_tokens > limit:
                raise DataError(
                    f"The prompt {request.id!r} has {len(ids)} tokens; with max_new_tokens = "
                    f"{config.max_new_tokens} it exceeds the {limit} that the {reader} can read. "
                    "Shorten the prompt or lower max_new_tokens."
                )


def response_text(row: Row, template: Template, engine: HfEngine) -> str:
    """The response as text, without what the template puts around it."""
    ids = row.token_ids[:-1] if row.finish_reason == "stop" else row.token_ids
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    # Decoded behind its prompt: some tokenizers drop the space before a text's first word.
    before = engine.tokenizer.decode(row.prompt_ids, **options)
    whole = engine.tokenizer.decode([*row.prompt_ids, *ids], **options)
    if whole.startswith(before):
        text: str = whole[len(before) :]
    else:
        text = engine.tokenizer.decode(ids, **options)
    opening, _, closing = template.response.partition("{response}")
    return text.removeprefix(opening).removesuffix(closing)
