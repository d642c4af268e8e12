"""One row of a comparison: responses of a method to all prompts, within a budget if given, judged.

    OUT/METHOD.jsonl          one `EvalRecord` a line, appended batch by batch; resumable
    OUT/draws/METHOD.jsonl    responses as they come, with a budget (METHOD chooses from them), and
                              from policies outside this process, which are judged afterwards
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.crossing import shares_tokens
from rewardsteer.decoding.generate import generate_by, require_answers
from rewardsteer.decoding.methods import compares
from rewardsteer.decoding.prompts import prompts_as_read
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import DataError
from rewardsteer.evaluation.budget import Budget, Sizes, best_within, equivalent_tokens, in_batches
from rewardsteer.evaluation.entries import Entry, Judge
from rewardsteer.evaluation.own_rewards import Rate, own_rewards
from rewardsteer.evaluation.policies import ComparedPolicy
from rewardsteer.evaluation.record_files import read_records
from rewardsteer.outputs import append_jsonl, file_name
from rewardsteer.records import EvalRecord, Generation


@dataclass(frozen=True)
class Run:
    """What all entries of a comparison share; see `rewardsteer.evaluation.generation.compare`."""

    policy: ComparedPolicy
    requests: Sequence[Request]
    judge: Judge
    out: Path
    template: Template | None
    budget: Budget | None
    progress: Callable[[str, int, int], None] = lambda label, done, total: None
    known: Path | None = None

    def records(self, entry: Entry) -> list[EvalRecord]:
        """Generate and judge what is missing in the entry's file; returns all records, in prompt
        order.

        The metrics of a record are ``reward``, ``surprise`` (−log p(y | x) / |y| under the policy
        alone, in nats per token, where the engine gives likelihoods), ``second_reward`` where there
        is a second judge, and the judge's ``metrics``. Its ``extra`` holds ``equivalent_tokens``,
        where the sizes of the models are known, and, with a budget, ``draws`` and ``budget_used``.
        """
        place = self.out / file_name(entry.label)
        done = read_records(place)
        foreign = done.keys() - {request.id for request in self.requests}
        if foreign:
            raise DataError(
                f"{place} holds answers to other prompts (for example {min(foreign)!r}); resume "
                "with the same prompts, or choose another output."
            )
        if len(done) < len(self.requests):
            rows, sizes = entry.config.batch_size, self.policy.sizes(entry)
            prompt_ids = self._prompt_ids(entry)
            self.policy.turn_to(entry)
            answers = self._answers(entry, done.keys(), self._rate(entry, prompt_ids), sizes)
            self.progress(entry.label, len(done), len(self.requests))
            for batch in in_batches(answers, rows):
                metrics = self._measure(entry, [answer for answer, _ in batch], prompt_ids)
                records = [
                    EvalRecord(
                        generation=answer, metrics=figures, extra=self._used(answer, draws, sizes)
                    )
                    for (answer, draws), figures in zip(batch, metrics, strict=True)
                ]
                append_jsonl(place, [record.model_dump_json() for record in records])
                done |= {record.generation.id: record for record in records}
                self.progress(entry.label, len(done), len(self.requests))
        return [done[request.id] for request in self.requests]

    def _prompt_ids(self, entry: Entry) -> dict[str, list[int]]:
        """Token ids of the prompts by request; none for a server that gives texts alone, which
        writes them as it likes."""
        if "token_ids" not in self.policy.abilities:
            return {}
        # A method may ignore the reward model that it was given.
        scorer = entry.method().scorer
        return prompts_as_read(self.requests, self.policy.tokenizer, scorer, self.template)

    def _rate(self, entry: Entry, prompt_ids: Mapping[str, list[int]]) -> Rate | None:
        """Rewards by the entry's own reward model, by which it chooses; None without one."""
        scorer, rows = entry.method().scorer, entry.config.batch_size
        if self.budget is None or scorer is None or compares(entry.config.method):
            return None
        if prompt_ids and shares_tokens(self.policy.tokenizer, scorer):
            return own_rewards(scorer, prompt_ids, rows)
        given = {request.id: request.prompt for request in self.requests}
        return own_rewards(scorer, given, rows, texts=True)

    def _answers(
        self, entry: Entry, done: Set[str], rate: Rate | None, sizes: Sizes
    ) -> Iterator[tuple[Generation, int]]:
        """Missing answers, each with the number of draws that it was chosen from."""
        at_once = self.budget is None and self.policy.here
        known = {} if self.known is None else read_records(self.known / file_name(entry.label))

        def sample(config: DecodingConfig, asked: Sequence[Request]) -> Iterator[Generation]:
            if config == entry.config and known.keys() >= {request.id for request in asked}:
                return iter([known[request.id].generation for request in asked])
            engine, method = self.policy.open(entry, config)
            answers = require_answers(generate_by(
                engine, asked, method, config, template=self.template, label=entry.label
            ))
            return answers if at_once else self._shown(entry.label, answers, len(asked))

        if at_once:
            missing = [request for request in self.requests if request.id not in done]
            for answer in sample(entry.config, missing):
                yield answer, 1
            return
        best, draws = best_within(
            self.budget, sizes, entry.config, self.requests,
            self.out / "draws" / file_name(entry.label), sample=sample, rate=rate,
        )
        yield from ((answer, draws) for answer in best if answer.id not in done)

    def _shown(
        self, label: str, answers: Generator[Generation, None, None], total: int
    ) -> Iterator[Generation]:
        """The answers; the progress of generating them is shown apart from that of judging."""
        with closing(answers):
            for count, answer in enumerate(answers, start=1):
                self.progress(f"{label}, drawing", count, total)
                yield answer

    def _measure(
        self, entry: Entry, answers: list[Generation], prompt_ids: Mapping[str, list[int]]
    ) -> list[dict[str, float]]:
        batch_size = entry.config.batch_size
        requests = {request.id: request for request in self.requests}
        rewards = _rewards(answers, requests, self.judge.scorer, batch_size)
        second: Any = [None] * len(answers)
        if self.judge.second is not None:
            second = _rewards(answers, requests, self.judge.second, batch_size)
        likely: Any = None
        if prompt_ids:
            read = [(prompt_ids[answer.id], answer.token_ids) for answer in answers]
            likely = self.policy.log_likelihoods(entry, read, batch_size)
        return [
            {"reward": float(reward)}
            | ({} if total is None else {"surprise": -total / max(len(answer.token_ids), 1)})
            | ({} if other is None else {"second_reward": float(other)})
            | {name: float(metric(answer)) for name, metric in self.judge.metrics.items()}
            for answer, reward, other, total in zip(
                answers, rewards, second, likely or [None] * len(answers), strict=True
            )
        ]

    def _used(self, answer: Generation, draws: int, sizes: Sizes) -> dict[str, float]:
        tokens = equivalent_tokens(answer.cost, sizes)
        # JSON has no NaN; unknown sizes leave it out.
        used = {} if math.isnan(tokens) else {"equivalent_tokens": tokens}
        if self.budget is None:
            return used
        return used | {"draws": draws, "budget_used": self.budget.spent(answer.cost, sizes)}


def _rewards(
    batch: list[Generation], requests: Mapping[str, Request], scorer: Any, batch_size: int
) -> Any:
    """Rewards ``[N]``. Prompts given as ids are already rendered and are scored as ids, in the
    judge's own vocabulary; others are rendered with the judge's template."""
    if all(requests[generation.id].prompt_ids is not None for generation in batch):
        return scorer.score_ids(
            [requests[generation.id].prompt_ids or [] for generation in batch],
            [
                scorer.close_response(generation.token_ids, generation.stop_token)
                for generation in batch
            ],
            batch_size=batch_size,
        )
    return scorer.score(
        [requests[generation.id].prompt for generation in batch],
        [generation.completion for generation in batch], batch_size=batch_size,
    )
