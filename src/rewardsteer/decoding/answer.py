"""The program that answers one prompt: a strategy or a guide, its scores and its cost."""

import functools
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

from rewardsteer.data.template import Template
from rewardsteer.data.text_ids import plain_text
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.crossing import shares_tokens
from rewardsteer.decoding.engine import Engine, Outcome
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.memory import EngineError
from rewardsteer.decoding.prompts import Prepared
from rewardsteer.decoding.requests import Request
from rewardsteer.decoding.running import in_order
from rewardsteer.decoding.sample import Encoded, Sample
from rewardsteer.decoding.scoring import Scoring
from rewardsteer.decoding.strategies.base import Direct, Strategy
from rewardsteer.decoding.strategies.prompt import PromptEngine
from rewardsteer.decoding.strategies.prompt_scorer import PromptScorer
from rewardsteer.errors import RewardsteerError
from rewardsteer.records import Cost, Generation, Prompt

logger = logging.getLogger(__name__)


Method = LogitsGuide | Strategy
Watch = Callable[[Sample], None]


def is_guided_by(method: Method) -> bool:
    """Whether the method's reward model acts on next-token scores, inside the engine."""
    return isinstance(method, LogitsGuide) and method.scorer is not None


def answer(
    engine: Engine, prompts: Sequence[Prepared], method: Method, config: DecodingConfig,
    template: Template, label: str, watch: Watch | None = None,
) -> Generator[Generation, None, None]:
    """Answer prompts that are prepared, by any engine. Prompts with an error, and those that fail,
    give results with ``error`` set."""
    scoring = None
    if isinstance(method, Strategy) and method.scorer is not None:
        scoring = scoring_beside(engine, method.scorer, config.batch_size)
    drafter: Engine | None = method.drafter

    async def close() -> None:
        await engine.close()
        if drafter is not None:
            await drafter.close()

    programs = (
        functools.partial(_respond, engine, scoring, one, method, config, template, label, watch)
        for one in prompts
    )
    failed: list[str] = []
    try:
        results = in_order(programs, engine.room, close, most=config.batch_size)
        with closing(results):
            for result in results:
                if result.error is not None:
                    failed.append(result.error)
                yield result
    except EngineError as error:
        raise error.cause from error
    if failed:
        logger.warning(
            "%d of %d prompts got no answer; the first one: %s", len(failed), len(prompts),
            failed[0],
        )


def scoring_beside(engine: Engine, scorer: Any, batch_size: int) -> Scoring:
    """The `Scoring` that answers strategies' questions to a reward model."""
    # If both run in this process, decoding cannot go on while the reward model runs.
    elsewhere = "logits" not in engine.abilities or getattr(scorer, "remote", False)
    return Scoring(
        scorer, batch_size=batch_size, activity=engine.activity, threaded=elsewhere,
        texts="token_ids" not in engine.abilities or not shares_tokens(engine.tokenizer, scorer),
    )


async def _respond(
    engine: Engine, scoring: Scoring | None, prompt: Prepared, method: Method,
    config: DecodingConfig, template: Template, label: str, watch: Watch | None,
) -> Generation:
    known: dict[str, Any] = {"id": prompt.request.id, "method": label, "seed": config.seed}
    try:
        if prompt.error is not None:
            raise prompt.error
        known["prompt"] = prompt.shown
        encoded = Encoded(
            prompt.request.id, prompt.ids, template=template,
            given=_given(prompt.request, engine.tokenizer),
        )
        outcome, cost = await run(engine, scoring, encoded, method, config, watch=watch)
    except RewardsteerError as error:
        return Generation(
            **{"prompt": "", "completion": "", **known}, finish_reason="error", error=str(error)
        )
    sample = outcome.sample
    return Generation(
        completion=sample.text, token_ids=list(sample.token_ids),
        finish_reason=sample.finish_reason or "length", stop_reason=sample.stop_reason,
        reward=outcome.reward, details=dict(outcome.details), cost=cost, **known,
    )


def _given(request: Request, tokenizer: Any) -> Prompt:
    """The prompt for reward models that read texts."""
    if request.prompt_ids is None or tokenizer is None:
        return request.prompt
    return request.prompt or plain_text(request.prompt_ids, tokenizer)


async def run(
    engine: Engine, scoring: Scoring | None, prompt: Encoded, method: Method,
    config: DecodingConfig, *, first: int = 0, top: int | None = None,
    watch: Watch | None = None,
) -> tuple[Outcome, Cost]:
    """The answer to one prompt, and its cost over all samples.

    Args:
        engine: runs the policy.
        scoring: the reward model of a strategy.
        prompt: the prompt.
        method: a guide or strategy.
        config: how samples are drawn.
        first: number of the first sample's draws.
        top: how many of the likeliest tokens samples' ``logprobs`` name; None: there are none.
        watch: called with every sample that begins.

    Raises:
        RewardsteerError: this prompt cannot be answered.
        EngineError: the engine cannot answer any prompt.
    """
    guide = method if isinstance(method, LogitsGuide) else None
    strategy = method if isinstance(method, Strategy) else Direct(None, config)
    own_engine = PromptEngine(
        engine, prompt, config, guide=guide, first=first, top=top, watch=watch,
        log_probabilities=strategy.asks_log_probabilities,
    )
    own_scorer = PromptScorer(scoring, prompt)
    try:
        outcome = await strategy.respond(prompt, own_engine, own_scorer)
    finally:
        own_engine.close()
        own_scorer.close()
    cost = own_engine.cost + own_scorer.cost
    return outcome, cost.model_copy(update={"new_tokens": outcome.sample.length})
