"""Rewards for callers that ask about one completion at a time, from many threads."""

import threading
from collections import deque
from concurrent.futures import Future

from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Prompt


class BatchedScoring:
    """Scores together what is asked while the reward model is at work.

    Who asks first scores alone. Those who ask meanwhile wait; then one of them scores for all, so
    batches fill up as soon as questions come faster than answers. Nobody waits for a clock.

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
                # Another thread may have answered while this one waited for its turn.
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
            # A row that cannot be scored is not the others' trouble.
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
