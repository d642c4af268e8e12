"""Answers to prompts by any decoding method, in order, each with what it cost."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from rewardsteer.data.render import render_prompt
from rewardsteer.data.template import Template, writer_of
from rewardsteer.data.tokenize import encode_prompt
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.defaults import NAMES, what_is_taken, with_defaults
from rewardsteer.decoding.engines.hf import HfEngine
from rewardsteer.decoding.guide import GroupGuide, Method, ResponseGuide, StepGuide, TokenGuide
from rewardsteer.decoding.loop import Row
from rewardsteer.decoding.memory import memory_told
from rewardsteer.decoding.methods import METHODS, wants_goal
from rewardsteer.decoding.penalties import check_token_ids, ending_ids
from rewardsteer.decoding.requests import Request, as_requests
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.decoding.steps import search
from rewardsteer.decoding.text import GrowingText
from rewardsteer.errors import ConfigError, DataError, RewardsteerError
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.models.compatibility import check_vocabularies
from rewardsteer.records import Cost, Generation, Prompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A request that is written and tokenized, or why it cannot be.

    Attributes:
        request: as given.
        shown: its prompt as results carry it.
        ids: its token ids.
        error: what is wrong with it; None: nothing.
    """

    request: Request
    shown: str = ""
    ids: Sequence[int] = ()
    error: RewardsteerError | None = None


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
    method: Method = METHODS.get(config.method)(scorer, with_defaults(config), *goals)
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
        template: how prompts are written; default: the reward model's, else the chat template
            where the tokenizer has one, else the plain one.
        label: ``method`` field of the results; default: the method's name.

    Yields:
        generations in the order of the prompts, each once it and those before it are finished. A
        row that fails (its prompt cannot be written or has unknown token ids, its logits or
        rewards are no numbers) has ``error`` set and ends alone; the others go on.

    Raises:
        MismatchError: the two tokenizers differ.
        ConfigError: ``top_k`` exceeds the vocabulary; out of memory.
        DataError: repeated ids, or a prompt that is too long.
    """
    engine = HfEngine(policy, tokenizer)
    settings = getattr(policy, "generation_config", None)
    told = what_is_taken(config, settings)
    if told and not NAMES.keys() <= config.model_fields_set:
        logger.warning("%s", told)
    config = with_defaults(config, settings)
    requests = as_requests(prompts)
    scorer = method.scorer
    if scorer is not None:
        check_vocabularies(tokenizer, scorer)
    if config.top_k > engine.vocabulary_size:
        raise ConfigError(
            f"top_k = {config.top_k} exceeds the policy's vocabulary of {engine.vocabulary_size} "
            "tokens; lower it, or use 0 to draw from all."
        )
    check_token_ids(config, engine.vocabulary_size)
    if config.stop and method.level not in ("token", "response"):
        raise ConfigError(
            f"The method {config.method!r} takes no stop strings; use stop_token_ids, or a method "
            "that guides token by token or chooses among whole responses."
        )
    template, renderer = writer_of(template, tokenizer, scorer)
    limits = {"policy": engine.position_limit}
    limits["reward model"] = getattr(scorer, "position_limit", None)
    ready = prepare(
        requests, template, renderer, tokenizer, limits, config, vocabulary=engine.readable
    )
    return stream(engine, ready, method, config, template, label or method.name)


def prepare(
    requests: Sequence[Request], template: Template, renderer: Any, tokenizer: Any,
    limits: dict[str, int | None], config: DecodingConfig, *, vocabulary: int,
) -> list[Prepared]:
    """Write and tokenize prompts. One that cannot be, or has token ids that the policy does not
    know (from ``vocabulary`` on), is kept with its error.

    Raises:
        DataError: a prompt is too long.
    """
    ready = []
    for request in requests:
        try:
            shown = show_request(request, template, renderer)
            ids = encode_request(request, template, renderer, tokenizer)
            check_ids(request, ids, vocabulary)
            ready.append(Prepared(request, shown, ids))
        except RewardsteerError as error:
            ready.append(Prepared(request, error=error))
    fine = [one for one in ready if one.error is None]
    check_lengths([one.request for one in fine], [one.ids for one in fine], limits, config)
    return ready


def check_ids(request: Request, ids: Sequence[int], vocabulary: int) -> None:
    """Raise `DataError` on a token id that the policy has no embedding for."""
    wrong = next((token for token in ids if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise DataError(
            f"The prompt {request.id!r} has the token id {wrong}, but the policy knows those from "
            f"0 to {vocabulary - 1}; give it ids of the policy's tokenizer, or text."
        )


def stream(
    engine: HfEngine, prompts: Sequence[Prepared], method: Method,
    config: DecodingConfig, template: Template, label: str,
) -> Iterator[Generation]:
    """Generate. Prompts with an error, and rows that fail, give results with ``error`` set."""
    answers = _answers(
        engine, [(one.request, one.ids) for one in prompts if one.error is None], method, config,
        template,
    )
    failed: list[str] = []
    with memory_told(config):
        for one in prompts:
            known = {"id": one.request.id, "method": label, "seed": config.seed}
            error: Exception | None = one.error
            if error is None:
                row, reward = next(answers)
                error = row.error
                known |= {"prompt": one.shown, "token_ids": row.token_ids, "cost": row.cost}
            if error is not None:
                failed.append(_words(error))
                yield Generation(
                    **{"prompt": "", "completion": "", **known}, finish_reason="error",
                    error=failed[-1],
                )
                continue
            yield Generation(
                completion=response_text(row, template, engine), finish_reason=end_of(row),
                reward=reward, **known,
            )
    if failed:
        logger.warning(
            "%d of %d prompts got no answer; the first one: %s", len(failed), len(prompts),
            failed[0],
        )


def _words(error: Exception) -> str:
    named = "" if isinstance(error, RewardsteerError) else f"{type(error).__name__}: "
    return named + str(error)


def require_answers(results: Iterator[Generation]) -> Iterator[Generation]:
    """Pass results on; for what needs an answer to every prompt.

    Raises:
        RewardsteerError: one failed; says why.
    """
    for result in results:
        if result.error is not None:
            raise RewardsteerError(result.error)
        yield result


# Prompts to answer, with their token ids; their answers, each with its reward where one is known.
_Asked = Sequence[tuple[Request, Sequence[int]]]
_Answers = Iterator[tuple[Row, float | None]]


def _answers(
    engine: HfEngine, asked: _Asked, method: Method, config: DecodingConfig, template: Template
) -> _Answers:
    if method.level == "group":
        return _plan(engine, asked, method, config, template)
    if method.level == "step":
        return _search(engine, asked, method, config)
    if method.level == "response":
        return _choose(engine, asked, method, config, template)
    return _guide(engine, asked, method, config, template)


def _guide(
    engine: HfEngine, asked: _Asked, method: TokenGuide, config: DecodingConfig, template: Template
) -> _Answers:
    for row in engine.stream(_rows(asked, 1, config, template, engine), method, config):
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
    engine: HfEngine, asked: _Asked, method: ResponseGuide, config: DecodingConfig,
    template: Template,
) -> _Answers:
    """Draw the samples of all prompts, and keep what the method chooses of each, at the cost of
    all of them. A prompt fails with a sample of its own."""
    n, plain = method.samples, METHODS.get("none")(None, config)
    drawn = engine.stream(_rows(asked, n, config, template, engine), plain, config)
    for some in _batches(asked, config.batch_size // n):
        groups = [list(islice(drawn, n)) for _ in some]
        began = time.perf_counter()
        failed = [next((row for row in group if row.error), None) for group in groups]
        whole = [place for place, row in enumerate(failed) if row is None]
        choices = iter(method.choose(
            [some[place][1] for place in whole],
            [[_given_ids(row, template, engine) for row in groups[place]] for place in whole],
            [some[place][0].id for place in whole], ending_ids(config, engine.stop_ids),
        ) if whole else ())
        share = (time.perf_counter() - began) / len(groups)
        for group, lost in zip(groups, failed, strict=True):
            if lost is not None:
                yield lost, None
                continue
            choice = next(choices)
            row, reads = group[choice.sample], choice.reads
            row.error = choice.error
            judging = Cost(
                rm_calls=reads.calls, rm_forwards=reads.forwards, rm_tokens=reads.tokens,
                seconds=share,
            )
            total = sum((one.cost for one in group), judging)
            row.cost = total.model_copy(update={"new_tokens": len(row.token_ids)})
            yield row, choice.reward


def _rows(
    asked: _Asked, samples: int, config: DecodingConfig, template: Template, engine: HfEngine
) -> Iterator[Row]:
    for request, ids in asked:
        for sample in range(samples):
            row = Row(request.id, ids, row_generator(config.seed, request.id, sample))
            if config.stop:
                row.text = GrowingText(
                    engine.tokenizer, ids, template, config.stop, min_tokens=config.min_tokens
                )
            yield row


def _given_ids(row: Row, template: Template, engine: HfEngine) -> list[int]:
    """Tokens of the response, without a stop string and what came with it."""
    response_text(row, template, engine)
    stopped = row.text is not None and row.text.stopped
    return row.text.kept(row.token_ids) if row.text and stopped else row.token_ids


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
    requests: Sequence[Request], encoded: Sequence[Sequence[int]], limits: dict[str, int | None],
    config: DecodingConfig,
) -> None:
    """Raise `DataError` where a row may grow longer than a model can read."""
    for request, ids in zip(requests, encoded, strict=True):
        for reader, limit in limits.items():
            if limit is not None and len(ids) + config.max_new_tokens > limit:
                raise DataError(
                    f"The prompt {request.id!r} has {len(ids)} tokens; with max_new_tokens = "
                    f"{config.max_new_tokens} it exceeds the {limit} that the {reader} can read. "
                    "Shorten the prompt or lower max_new_tokens."
                )


def response_text(row: Row, template: Template, engine: HfEngine) -> str:
    """The response as text, without what the template puts around it, and cut at stop strings."""
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
    text = text.removeprefix(opening).removesuffix(closing)
    if row.text is None:
        return text
    row.text.finish(ids, text)
    return row.text.text


def end_of(row: Row) -> Literal["stop", "length"]:
    """Why a row ended: a token or a string that stops, or its length."""
    return "stop" if row.text is not None and row.text.stopped else row.finish_reason
