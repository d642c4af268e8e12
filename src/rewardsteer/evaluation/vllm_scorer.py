"""Rewards of whole completions by vLLM's pooling runner.

A scalar checkpoint is an ordinary sequence classifier, so stock vLLM reads it; asked for raw
values it answers with the rewards.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rewardsteer.data.template import Template
from rewardsteer.decoding.engines.vllm_engine import longest_row, start
from rewardsteer.errors import ConfigError, NonFiniteError
from rewardsteer.models.checkpoint import fingerprint, load_tokenizer, read_card
from rewardsteer.models.scorer import Scorer, TokenScores


class VllmScorer(Scorer):
    """The part of a `Scorer` that `rewardsteer.evaluation.scoring` uses, by vLLM.

    Args:
        folder: a reward model with a scalar head.
        dtype: float32, bfloat16 or float16; None: as saved.
        options: engine arguments of vLLM.

    Raises:
        CheckpointError: missing or damaged folder.
        ConfigError: another head; vLLM is not installed or refuses an option.
    """

    def __init__(self, folder: Path, dtype: str | None = None, **options: Any) -> None:
        card = read_card(folder)
        if card.head.kind != "scalar":
            raise ConfigError(
                f"vLLM gives the rewards of scalar heads, but {folder} has a {card.head.kind} "
                "head; use --engine transformers."
            )
        self.tokenizer = load_tokenizer(folder)
        self.template = Template.model_validate(card.template)
        self.objective, self.name = card.objective, str(folder)
        self.fingerprint = fingerprint(folder)
        self._limit = longest_row(folder)
        self._llm = start(
            str(folder), runner="pooling", dtype=dtype or "auto", max_model_len=self._limit,
            **options,
        )

    @property
    def position_limit(self) -> int | None:
        """Longest row the model can read, in tokens; None when it has no limit."""
        return self._limit

    def token_scores_ids(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]],
        **settings: Any,
    ) -> list[TokenScores]:
        """The rewards ``[1]`` of whole completions. vLLM makes its own batches.

        Raises:
            ConfigError: similarities to a goal are asked for.
            NonFiniteError: a reward is NaN or infinite; names the row.
        """
        from vllm import PoolingParams

        if settings.get("goal") is not None:
            raise ConfigError(
                "vLLM gives no hidden states to compare with a goal; use --engine transformers, or "
                "--goal none."
            )
        rows = [[*p, *r] for p, r in zip(prompt_ids, response_ids, strict=True)]
        outputs = self._llm.classify(
            [{"prompt_token_ids": row} for row in rows],
            pooling_params=PoolingParams(use_activation=False), use_tqdm=False,
        )
        scores = []
        for number, (output, ids) in enumerate(zip(outputs, prompt_ids, strict=True), start=1):
            reward = np.asarray(output.outputs.probs, dtype=np.float64)
            if not np.isfinite(reward).all():
                raise NonFiniteError(
                    f"The reward of row {number} is {reward[0]}; expected a finite number. The "
                    "checkpoint may be damaged, or its values overflow in this dtype: try float32."
                )
            scores.append(TokenScores(reward, None, len(ids)))
        return scores
