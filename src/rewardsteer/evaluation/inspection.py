"""A completion token by token: its rewards, and the tokens preferred by policy, reward model and
guided method.

The method's session scores every position with caches, as in decoding, so the values shown are
those that steer.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from rewardsteer.data.sources.files import well_formed
from rewardsteer.data.sources.turns import read_pair, read_prompt
from rewardsteer.data.text_ids import plain_text
from rewardsteer.decoding.answer import Method
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import generate, require_answers
from rewardsteer.decoding.prompts import prompts_as_read
from rewardsteer.decoding.requests import Request
from rewardsteer.decoding.strategies.early_rejection import crossings
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.evaluation.correctness.config import Signal
from rewardsteer.evaluation.inspected_columns import Columns, token_texts
from rewardsteer.evaluation.inspection_records import FilterStop, InspectedToken, Inspection
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.models.compatibility import check_vocabularies, members
from rewardsteer.models.limits import position_limit


class FilterRule(NamedTuple):
    """A filter: stop at the first token, after ``start`` ones, whose value is below a threshold."""

    signal: Signal
    threshold: float
    start: int = 5


def inspection_steps(
    policy: Any, tokenizer: Any, scorer: Any, method: Method, prompt_ids: Sequence[int],
    completion_ids: Sequence[int], *, config: DecodingConfig | None = None,
    goal: GoalState | None = None, rule: FilterRule | None = None, alternatives: int = 6,
    name: str = "0",
) -> Generator[None, None, Inspection]:
    """Inspect a completion in steps of one token, so that the caller can do other work in between.

    Args:
        policy: a causal LM in evaluation mode.
        tokenizer: the policy's.
        scorer: the reward model, or several as a `RewardEnsemble`.
        method: from `rewardsteer.decoding.generate.build_method`; one that does not guide token by
            token leaves the third column empty.
        prompt_ids: at least one token.
        completion_ids: at least one token; read exactly as given.
        config: the method's settings, of which mode and temperature are used. Default: sampling at
            temperature 1.
        goal: a goal state of the reward model, for similarities.
        rule: a filter; the token at which it stops is marked.
        alternatives: number of tokens per column.
        name: id of the record, also used in messages.

    Raises:
        MismatchError: the two tokenizers differ.
        ConfigError: a filter by similarity without a goal.
        DataError: an empty prompt or completion, or one too long to read.
        NonFiniteError: rewards are no numbers.
    """
    config = config or DecodingConfig(top_k=10)
    _check(policy, tokenizer, scorer, prompt_ids, completion_ids, goal, rule)
    rewards, similar = _values(scorer, prompt_ids, completion_ids, goal)
    pieces = token_texts(tokenizer, prompt_ids, completion_ids)
    watch = Columns(policy, tokenizer, scorer, method, config, alternatives)
    tokens = []
    for index, token in enumerate(completion_ids):
        yield
        told = watch.before([*prompt_ids, *completion_ids[:index]], index, int(token), name)
        tokens.append(InspectedToken(
            token_id=int(token), text=pieces[index], reward=rewards[index],
            similarity=None if similar is None else similar[index], **told,
        ))
    return _record(
        tokenizer, prompt_ids, completion_ids, tokens, name=name, method=method.name,
        stop=_stop(rule, rewards, similar),
    )


def inspect_completion(*what: Any, **options: Any) -> Inspection:
    """Inspect a completion at once; arguments and errors are those of `inspection_steps`."""
    steps = inspection_steps(*what, **options)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Inspection = end.value
            return found


def inspect_rewards(
    scorer: Any, prompt_ids: Sequence[int], completion_ids: Sequence[int], *,
    goal: GoalState | None = None,
) -> Inspection:
    """Inspect a completion without a policy: rewards, and similarities to a goal state.

    Raises:
        DataError: an empty prompt or completion, or one too long to read.
        NonFiniteError: rewards are no numbers.
    """
    rewards, similar = _values(scorer, prompt_ids, completion_ids, goal)
    pieces = token_texts(scorer.tokenizer, prompt_ids, completion_ids)
    tokens = [
        InspectedToken(
            token_id=int(token), text=pieces[index], reward=rewards[index],
            similarity=None if similar is None else similar[index],
        )
        for index, token in enumerate(completion_ids)
    ]
    return _record(scorer.tokenizer, prompt_ids, completion_ids, tokens, name="0")


def _record(
    tokenizer: Any, prompt_ids: Sequence[int], completion_ids: Sequence[int],
    tokens: list[InspectedToken], *, name: str, **told: Any,
) -> Inspection:
    whole = tokenizer.decode([*prompt_ids, *completion_ids], skip_special_tokens=True)
    before = tokenizer.decode(list(prompt_ids), skip_special_tokens=True)
    # Special tokens are kept, as in the tokens of the completion.
    read = plain_text(prompt_ids, tokenizer, special=True)
    return Inspection(
        id=name, prompt=read, completion=whole.removeprefix(before), tokens=tokens, **told
    )


def _values(
    scorer: Any, prompt_ids: Sequence[int], completion_ids: Sequence[int], goal: GoalState | None
) -> tuple[list[float], list[float] | None]:
    """Rewards at every token, weighted and summed over an ensemble, and similarities."""
    several = members(scorer)
    weights = getattr(scorer, "weights", (1.0,))
    read = [
        one.token_scores_ids([prompt_ids], [completion_ids], goal=goal)[0] for one in several
    ]
    total = sum(weight * one.rewards for weight, one in zip(weights, read, strict=True))
    similar = read[0].similarities
    return list(map(float, total)), None if similar is None else list(map(float, similar))


def _stop(
    rule: FilterRule | None, rewards: list[float], similar: list[float] | None
) -> FilterStop | None:
    if rule is None:
        return None
    values = rewards if rule.signal == "reward" else similar
    assert values is not None, "_check() first"
    index: int | None = None
    if len(values) > rule.start:
        first = int(crossings(
            torch.tensor(values).double().numpy(),
            torch.tensor([rule.threshold]).double().numpy(), rule.start,
        )[0])
        index = first if first < len(values) else None
    return FilterStop(
        signal=rule.signal, threshold=rule.threshold, start=rule.start, index=index
    )


def _check(
    policy: Any, tokenizer: Any, scorer: Any, prompt_ids: Sequence[int],
    completion_ids: Sequence[int], goal: GoalState | None, rule: FilterRule | None,
) -> None:
    check_vocabularies(tokenizer, scorer)
    if goal is not None and len(members(scorer)) > 1:
        raise ConfigError("A goal state belongs to one reward model; inspect with that one alone.")
    if rule is not None and rule.signal == "similarity" and goal is None:
        raise ConfigError(
            "A filter by similarity needs a goal state and there is none; make one with "
            "'rewardsteer goal-state', or filter by reward."
        )
    for what, ids in (("prompt", prompt_ids), ("completion", completion_ids)):
        if not len(ids):
            raise DataError(f"The {what} encodes to no token, at least one is needed.")
    length = len(prompt_ids) + len(completion_ids)
    limits = {"policy": position_limit(policy.config), "reward model": scorer.position_limit}
    for reader, limit in limits.items():
        if limit is not None and length > limit:
            raise DataError(
                f"Prompt and completion have {length} tokens together; the {reader} can read "
                f"{limit}. Shorten them."
            )


def as_read(
    policy: Any, tokenizer: Any, scorer: Any, method: Method, config: DecodingConfig,
    row: Mapping[str, Any],
) -> tuple[list[int], list[int]]:
    """Token ids of prompt and completion of a row.

    Args:
        policy, tokenizer, scorer, method, config: as in `inspect_completion`.
        row: ``id``, ``prompt`` (text or messages), and ``token_ids`` or ``completion`` (see
            `read_pair`); without either, the method generates a completion.

    Raises:
        DataError: malformed messages.
    """
    place, text = f"The row {row['id']!r}", row.get("completion")
    if row.get("token_ids") or text is None:
        prompt, text = read_prompt(row["prompt"], place), None
    else:
        prompt, text = read_pair(row["prompt"], text, place)
    with well_formed(place):
        request = Request(id=row["id"], prompt=prompt)
    prompt_ids = prompts_as_read([request], tokenizer, scorer, None)[request.id]
    if row.get("token_ids"):
        return prompt_ids, list(row["token_ids"])
    if text is not None:
        return prompt_ids, scorer.encode([prompt], [text])[1][0]
    [written] = require_answers(generate(policy, tokenizer, [request], method, config))
    return prompt_ids, written.token_ids
