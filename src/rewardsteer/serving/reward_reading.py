"""Rows for requests of rewards, within the server's limits: token ids for reward models that take
them, texts for all others."""

from collections.abc import Sequence
from typing import Any

from rewardsteer.data.text_ids import bare_ids
from rewardsteer.models.written import divide_written, encode_written, takes_written
from rewardsteer.records import Prompt
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.handles import RequestHandle
from rewardsteer.serving.reading import Rows, check_length, written
from rewardsteer.serving.rewards import RewardJob, TextRows

# Characters counted as one token if the reward model has no tokenizer.
_CHARACTERS = 4


class RewardReader:
    """Prepares requests for a reward model.

    Attributes:
        takes_ids: whether the model scores rows of token ids, and gives rewards of their tokens.
        takes_written: whether the model scores rendered texts (prompt and completion in one).
    """

    def __init__(self, scorer: Any, limits: ServingConfig) -> None:
        self._scorer, self._limits = scorer, limits
        self._tokenizer = scorer.tokenizer
        self.takes_ids = hasattr(scorer, "score_ids")
        self.takes_written = takes_written(scorer)

    def job(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *,
        steps: Sequence[Sequence[str]] | None = None, closed: bool = True,
    ) -> RewardJob:
        """Prompts with completions, ready to be scored.

        Raises:
            ApiError: nothing to score, or too much.
        """
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            if not prompt and not completion:
                raise bad_request(f"Prompt and completion {row} are both empty.", "input")
        texts = TextRows(prompts, completions, steps, closed)
        if not self.takes_ids:
            rows = [self._counted(one) for one in prompts], [self._counted(c) for c in completions]
            self._check_lengths(*rows)
            return RewardJob(RequestHandle(), *rows, texts=texts)
        ids: tuple[Rows, Rows] = written(
            lambda: self._scorer.encode(prompts, completions, closed=closed)
        )
        self._check_ids(*ids)
        return RewardJob(RequestHandle(), *ids, texts=None if steps is None else texts)

    def written_job(
        self, texts: Sequence[str], prompts: Sequence[str] | None = None, *, special: bool = True
    ) -> RewardJob:
        """Rendered texts of prompts with completions, closed by end-of-text if the template does
        so; padding and end-of-text around them do not matter.

        Args:
            texts: prompts with completions.
            prompts: beginnings of the texts, where they are known.
            special: put beginning-of-text before texts that have none.

        Raises:
            ApiError: nothing to score, or too much; or the model reads a prompt and its completion.
        """
        for index, text in enumerate(texts):
            if not text:
                raise bad_request(f"Text {index} is empty.", "query")
        if not self.takes_written:
            return self._divided(texts, prompts)
        ids: tuple[Rows, Rows] = written(
            lambda: encode_written(self._scorer, texts, prompts, special=special)
        )
        self._check_ids(*ids)
        return RewardJob(RequestHandle(), *ids)

    def ids_job(self, rows: Sequence[Sequence[int]]) -> RewardJob:
        """Rows of token ids, read as they are; raises `ApiError`."""
        if not self.takes_written:
            raise bad_request(self._reads_pairs("token ids"), "input")
        response_ids = [list(row) for row in rows]
        prompt_ids: Rows = [[] for _ in rows]
        self._check_ids(prompt_ids, response_ids)
        return RewardJob(RequestHandle(), prompt_ids, response_ids)

    def _divided(self, texts: Sequence[str], prompts: Sequence[str] | None) -> RewardJob:
        """Rendered texts, for a model that takes a prompt and its completion."""
        completions = divide_written(texts, prompts, self._tokenizer)
        if completions is None:
            raise bad_request(self._reads_pairs("written texts"), "query")
        return self.job(list(prompts or ()), completions)

    def _reads_pairs(self, given: str) -> str:
        return (
            f"This reward model reads a prompt and its completion and cannot score {given}; use "
            "/v1/rewards or /score, send messages, or to /get_reward prompts with completions."
        )

    def _counted(self, text: Prompt) -> list[int]:
        """Token ids of a text, for counting only."""
        whole = text if isinstance(text, str) else "\n".join(turn.content for turn in text)
        if self._tokenizer is None:
            return [0] * -(-len(whole) // _CHARACTERS)
        return written(lambda: bare_ids(whole, self._tokenizer))

    def _check_lengths(self, prompt_ids: Rows, response_ids: Rows) -> None:
        for prompt, response in zip(prompt_ids, response_ids, strict=True):
            check_length(self._limits, len(prompt) + len(response), "input")

    def _check_ids(self, prompt_ids: Rows, response_ids: Rows) -> None:
        self._check_lengths(prompt_ids, response_ids)
        limit, known = self._scorer.position_limit, self._scorer.vocabulary_size
        for row, (prompt, response) in enumerate(zip(prompt_ids, response_ids, strict=True)):
            length = len(prompt) + len(response)
            if not response:
                raise bad_request(f"Completion {row} holds no token to score.", "input")
            if limit is not None and length > limit:
                raise bad_request(
                    f"Completion {row} has {length} tokens with its prompt; the reward model reads "
                    f"at most {limit}.", "input", "context_length_exceeded",
                )
            if max(*prompt, *response, 0) >= known:
                raise bad_request(
                    f"Completion {row} holds the token id {max(*prompt, *response, 0)}; the reward "
                    f"model has none beyond {known - 1}.", "input",
                )
