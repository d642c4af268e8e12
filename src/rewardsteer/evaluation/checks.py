"""What is refused before a comparison runs."""

import math
from collections.abc import Sequence
from typing import Any

from rewardsteer.decoding.crossing import shares_tokens
from rewardsteer.decoding.engines.choice import HERE
from rewardsteer.decoding.prompts import prompts_as_read
from rewardsteer.errors import ConfigError, DataError, MismatchError
from rewardsteer.evaluation.budget import Budget
from rewardsteer.evaluation.entries import Entry
from rewardsteer.evaluation.judged_run import Run
from rewardsteer.models.compatibility import check_head, reads_tokens, shown_name
from rewardsteer.models.heads import CLASSIFIER_HEAD
from rewardsteer.models.pair_scorer import PairScorer, no_reward
from rewardsteer.outputs import file_name


def check_run(run: Run, entries: Sequence[Entry]) -> None:
    """Check judges, entries and prompts against the policy and its engine; nothing is generated.

    Raises:
        ConfigError: the engine cannot run an entry, or does not know the sizes that a budget of
            tokens needs.
        MismatchError: a judge cannot score single responses, or the tokens of prompts given as ids;
            models of an entry do not fit each other.
    """
    policy = run.policy
    for user, scorer in (("The judge", run.judge.scorer), ("The second judge", run.judge.second)):
        if scorer is not None:
            _check_judge(user, scorer)
    if not policy.here:
        policy.shared.longest = max(_longest(run, entry) for entry in entries)
    for entry in entries:
        policy.check(entry)
    given = next((one.id for one in run.requests if one.prompt_ids is not None), None)
    for scorer in (run.judge.scorer, run.judge.second):
        if given is not None and scorer is not None:
            _check_ids(run, given, scorer)
    if run.budget is not None and run.budget.unit == "tokens":
        for entry in entries:
            _check_sizes(run, entry)


def _longest(run: Run, entry: Entry) -> int:
    """Maximum of prompt and response tokens; 0 without the policy's tokenizer."""
    tokenizer = run.policy.tokenizer
    if tokenizer is None:
        return 0
    prompts = prompts_as_read(run.requests, tokenizer, entry.method().scorer, run.template)
    return max(map(len, prompts.values()), default=0) + entry.config.max_new_tokens


def _check_judge(user: str, scorer: Any) -> None:
    if isinstance(scorer, PairScorer):
        raise MismatchError(no_reward(scorer.name, scorer.kind))
    if reads_tokens(scorer) and scorer.gives_next_token:
        # A vocabulary head's reward of a response comes from the state before its last token.
        check_head(user, scorer, CLASSIFIER_HEAD, "judge by another")


def _check_ids(run: Run, given: str, scorer: Any) -> None:
    if "token_ids" not in run.policy.abilities:
        raise MismatchError(
            f"The prompt {given!r} is given as token ids, but the policy's server gives texts "
            "alone, which the judge cannot continue from ids; give prompts as texts."
        )
    if not shares_tokens(run.policy.tokenizer, scorer):
        raise MismatchError(
            f"The prompt {given!r} is given as token ids, but {shown_name(scorer)} has another "
            "tokenizer than the policy; give prompts as texts, or judge by another reward model."
        )


def _check_sizes(run: Run, entry: Entry) -> None:
    if any(math.isnan(size) for size in run.policy.sizes(entry)):
        raise ConfigError(
            "A budget of tokens counts those of each model by its size relative to the policy's, "
            f"and the sizes of the policies of {entry.label!r} are not known behind an address; "
            "name folders of this machine as policies (--model, draft_model), or use a budget of "
            "seconds or calls."
        )


def check_divergence(budget: Budget | None, kl_prompts: int, engine: str = HERE) -> None:
    """Raise `ConfigError` where KL divergences are requested and cannot be measured."""
    if kl_prompts and engine != HERE:
        raise ConfigError(
            "KL divergences need the policy's whole next-token distributions, which the engine "
            f"{engine} does not give; leave out kl_prompts (--kl-prompts), or use the engine "
            f"{HERE}."
        )
    if budget is not None and kl_prompts:
        raise ConfigError(
            "The KL divergence of responses chosen within a budget is not known; leave out "
            "kl_prompts or the budget."
        )


def check_labels(labels: Sequence[str], baseline: str | None) -> str:
    """The label of the baseline, by default the first.

    Raises:
        ConfigError: no entry has this label.
        DataError: two entries would share a file.
    """
    if len({file_name(label) for label in labels}) != len(labels):
        raise DataError(
            "The labels of compared methods must differ in more than signs, got "
            f"{', '.join(labels)}."
        )
    if baseline is not None and baseline not in labels:
        raise ConfigError(
            f"The baseline {baseline!r} is none of the compared methods: {', '.join(labels)}."
        )
    return baseline or labels[0]
