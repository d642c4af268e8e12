"""Reward functions for verl (``custom_reward_function.path`` and ``.name``).

A file for verl:

    from rewardsteer.integrations.verl import RewardFunction

    reward = RewardFunction.load("out/bt/model")
    compute_score = reward.compute_score      # reward managers that score one response per call
    compute_scores = reward.compute_scores    # reward_model.reward_manager=batch
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from rewardsteer.data.render import as_prompt
from rewardsteer.data.sources.files import fields_of
from rewardsteer.devices import AUTO
from rewardsteer.errors import DataError
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.models.written import bare
from rewardsteer.records import Prompt

# Columns of verl's prepared datasets that hold the prompt as a text.
_PROMPTS = ("prompt", "question", "problem")


class RewardFunction:
    """Rewards of responses, in the two forms that verl calls.

    verl passes the response as text, and the prompt only if ``extra_info`` holds it.

    Args:
        prompt_key: field of ``extra_info`` with the prompt, a text or messages; None: ``prompt``,
            ``question`` or ``problem``, the first one present in this order.
        batch_size: responses scored together.
    """

    def __init__(
        self, scorer: TextScorer, *, prompt_key: str | None = None, batch_size: int = 64
    ) -> None:
        self.scorer = scorer
        self._keys = _PROMPTS if prompt_key is None else (prompt_key,)
        self._batch_size = batch_size
        self._batched = BatchedScoring(scorer, batch_size)

    @classmethod
    def load(
        cls, name_or_path: str | Path, *, device: str = AUTO, prompt_key: str | None = None,
        batch_size: int = 64, **options: Any,
    ) -> "RewardFunction":
        """Load from a folder, a hub name or an address; ``options`` as in `load_scorer`."""
        return cls(
            load_scorer(name_or_path, device=device, **options), prompt_key=prompt_key,
            batch_size=batch_size,
        )

    def compute_score(
        self, data_source: str, solution_str: str, ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None, **_: Any,
    ) -> float:
        """The reward of one response. Concurrent calls from several threads (as in verl's
        asynchronous reward managers) are batched.

        Raises:
            DataError: ``extra_info`` holds no prompt.
            NonFiniteError: the reward is NaN or infinite.
        """
        return self._batched.score(self._prompt(extra_info), self._bare(solution_str))

    def compute_scores(
        self, data_sources: Sequence[str], solution_strs: Sequence[str],
        ground_truths: Sequence[Any], extra_infos: Sequence[Mapping[str, Any] | None], **_: Any,
    ) -> list[float]:
        """The rewards of a batch of responses; raises as `compute_score` does."""
        rewards = self.scorer.score(
            [self._prompt(one) for one in extra_infos], [self._bare(one) for one in solution_strs],
            batch_size=self._batch_size,
        )
        return [float(reward) for reward in rewards]

    def _prompt(self, extra_info: Mapping[str, Any] | None) -> Prompt:
        for key in self._keys:
            found = (extra_info or {}).get(key)
            if found is not None:
                # Lists of messages from Parquet files are arrays.
                return as_prompt(found if isinstance(found, str) else list(found))
        raise DataError(
            f"Expected the prompt in extra_info, as {' or '.join(self._keys)}; got the fields "
            f"{fields_of(extra_info or {})}. Keep it there when the dataset is prepared, or name "
            "its field with prompt_key=."
        )

    def _bare(self, response: str) -> str:
        """The response without its end token, which some reward managers decode as text."""
        return bare(response, self.scorer.tokenizer)


class BatchedScoring:
    """Batches the requests of several threads while the reward model is busy.

    The first thread scores its request alone. Threads that arrive meanwhile wait; then one of them
    scores for all. So batches fill up when requests arrive faster than results, without a timer.

    Args:
        scorer: the reward model; it is used by one thread at a time.
        batch_size: completions scored together.
    """

    def __init__(self, scorer: TextScorer, batch_size: int) -> None:
        self._scorer, self._batch_size = scorer, batch_size
        self._waiting: deque[tuple[Prompt, str, Future[float]]] = deque()
        self._turn = threading.Lock()

    def score(self, prompt: Prompt, completion: str) -> float:
        """The reward of one completion; raises what `TextScorer.score` does."""
        asked: Future[float] = Future()
        self._waiting.append((prompt, completion, asked))
        while not asked.done():
            with self._turn:
                # Another thread may have scored this request while this thread waited.
                if not asked.done():
                    self._answer()
        return asked.result()

    def _answer(self) -> None:
        batch = [
            self._waiting.popleft() for _ in range(min(len(self._waiting), self._batch_size))
        ]
        try:
            rewards = self._scorer.score(
                [prompt for prompt, _, _ in batch], [text for _, text, _ in batch],
                batch_size=self._batch_size,
            )
        except Exception as error:
            if len(batch) == 1:
                batch[0][2].set_exception(error)
                return
            # A row that cannot be scored must not fail the other requests.
            for prompt, text, asked in batch:
                try:
                    [reward] = self._scorer.score([prompt], [text])
                except Exception as own:
                    asked.set_exception(own)
                else:
                    asked.set_result(float(reward))
            return
        for (_, _, asked), reward in zip(batch, rewards, strict=True):
            asked.set_result(float(reward))
