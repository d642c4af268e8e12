"""A reward function for OpenRLHF (``--remote_rm_url FILE.py``).

The file:

    from rewardsteer.integrations.openrlhf import RewardFunction

    reward_func = RewardFunction.load("out/bt/model")

``--remote_rm_url http://HOST:PORT/get_reward`` requests the same rewards from `rewardsteer serve`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rewardsteer.devices import AUTO
from rewardsteer.errors import DataError
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.models.written import divide_written, encode_written, takes_written


class RewardFunction:
    """Rewards of queries, texts of prompt and response as the policy's chat template writes them.

    A reward model on token ids scores the queries unchanged, so policy and reward model should have
    the same chat template. A reward model on texts gets prompts and responses.
    """

    def __init__(self, scorer: TextScorer, *, batch_size: int = 64) -> None:
        self.scorer, self._batch_size = scorer, batch_size

    @classmethod
    def load(
        cls, name_or_path: str | Path, *, device: str = AUTO, batch_size: int = 64, **options: Any
    ) -> "RewardFunction":
        """Load from a folder, a hub name or an address; ``options`` as in `load_scorer`."""
        return cls(load_scorer(name_or_path, device=device, **options), batch_size=batch_size)

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Rewards in the form that OpenRLHF expects of a reward function.

        Args:
            queries: prompts with responses.
            prompts: the prompts, with which the queries begin.
            labels: of the rows; ignored.

        Returns:
            ``rewards`` ``[N]`` (float32) for the advantages, ``scores`` with the same values for
            dynamic filtering, and ``extra_logs``.

        Raises:
            DataError: a query is empty or does not begin with its prompt.
            NonFiniteError: a reward is NaN or infinite; names the row.
        """
        rewards = torch.tensor(self._rewards(queries, prompts), dtype=torch.float32)
        return {"rewards": rewards, "scores": rewards, "extra_logs": {"reward_model": rewards}}

    def _rewards(self, queries: Sequence[str], prompts: Sequence[str]) -> np.ndarray:
        scorer: Any = self.scorer
        for number, query in enumerate(queries, start=1):
            if not query:
                raise DataError(f"Query {number} is empty; expected a prompt with its response.")
        if takes_written(scorer):
            ids = encode_written(scorer, queries, prompts)
            found: np.ndarray = scorer.score_ids(*ids, batch_size=self._batch_size)
            return found
        completions = divide_written(queries, prompts, scorer.tokenizer)
        if completions is None:
            raise DataError(
                "Expected queries that begin with their prompts, because this reward model reads "
                "a prompt and its completion; use one that takes token ids."
            )
        scored: np.ndarray = scorer.score(
            list(prompts), completions, batch_size=self._batch_size
        )
        return scored
