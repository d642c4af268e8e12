"""Rewards of completions by vLLM.

A scalar checkpoint is an ordinary sequence classifier, whose raw values vLLM's pooling runner
returns. A vocabulary head is an ordinary causal language model: the reward of a prefix that ends in
a token is that token's logit, which vLLM returns for every token of a prompt.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rewardsteer.data.template import Template, resolve, stored_template
from rewardsteer.decoding.engines.vllm_start import start
from rewardsteer.decoding.policy import model_bounds
from rewardsteer.errors import ConfigError, NonFiniteError
from rewardsteer.models.checkpoint import fingerprint, load_tokenizer, read_card
from rewardsteer.models.heads.projection import count_tokens
from rewardsteer.models.limits import padding_id
from rewardsteer.models.scorer import Scorer, TokenScores


class TokenLimit:
    """An extension of vLLM's workers that removes padding rows of the output layer from the logits,
    so that log-probabilities are normalised over real tokens alone."""

    def limit_tokens(self, count: int) -> int:
        """Keep the logits of the first ``count`` tokens; returns how many layers were changed."""
        from vllm.model_executor.layers.logits_processor import LogitsProcessor

        model: Any = self.get_model()  # type: ignore[attr-defined]
        layers = [one for one in model.modules() if isinstance(one, LogitsProcessor)]
        for layer in layers:
            layer.org_vocab_size = count
        return len(layers)


class VllmScorer(Scorer):
    """A scorer by vLLM with the methods of `Scorer` that `rewardsteer.evaluation.scoring` needs.

    Args:
        folder: a reward model with a linear head.
        dtype: float32, bfloat16 or float16; None: as saved.
        template: how prompts and responses are written; None: the folder's own.
        tokens: return the rewards of all prefixes, not of complete completions alone.
        options: engine arguments of vLLM.

    Raises:
        CheckpointError: missing or damaged folder.
        ConfigError: another head; vLLM is not installed or refuses an option.
    """

    def __init__(
        self, folder: Path, dtype: str | None = None, *, tokens: bool = False,
        template: Template | None = None, **options: Any,
    ) -> None:
        from transformers import AutoConfig

        card = read_card(folder)
        if card.head.layers != "linear":
            raise ConfigError(
                f"vLLM supports linear heads alone, but {folder} has one of several layers "
                f"({card.head.layers}); use the engine transformers (--engine)."
            )
        if card.reading == "step_logit":
            raise ConfigError(
                f"{folder} is a process reward model, whose steps vLLM does not aggregate; use "
                "the engine transformers (--engine)."
            )
        self.tokenizer = load_tokenizer(folder)
        self.template = resolve(template or stored_template(card.template), self.tokenizer)
        next_token = card.head.head_class.gives_next_token
        self.unread_id = None
        if not next_token:
            self.unread_id = padding_id(AutoConfig.from_pretrained(str(folder)))
        self.objective, self.reading = card.objective, card.reading
        self.name = str(folder)
        self.fingerprint = fingerprint(folder)
        self._limit, self._tokens = model_bounds(folder)[0], tokens
        if not next_token:
            self._rewards = self._from_values
            # token_classify cannot use cached prefixes, so it is used only where needed.
            task = "token_classify" if tokens else "classify"
            mode: dict[str, Any] = {"runner": "pooling", "pooler_config": {"task": task}}
        else:
            self._rewards = self._from_logits
            mode = {"logprobs_mode": "raw_logprobs" if self.autoregressive else "raw_logits"}
            if self.autoregressive:
                mode["worker_extension_cls"] = f"{TokenLimit.__module__}.{TokenLimit.__name__}"
        self._llm = start(
            str(folder), dtype=dtype or "auto", max_model_len=self._limit, **mode, **options
        )
        if self.autoregressive:
            tokens_known = card.tokens or count_tokens(self.tokenizer, model_bounds(folder)[1])
            if not all(self._llm.collective_rpc("limit_tokens", args=(tokens_known,))):
                raise ConfigError(
                    f"vLLM's model of {folder} has no layer that tells which logits belong to "
                    "tokens; use the engine transformers (--engine)."
                )
        if next_token and self._limit is not None:
            self._limit -= 1  # vLLM generates at least one token after a prompt

    @property
    def position_limit(self) -> int | None:
        """Longest row the model can read, in tokens; None when it has no limit."""
        return self._limit

    def score_ids(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]],
        **settings: Any,
    ) -> np.ndarray:
        """The rewards ``[N]`` of complete completions; see `token_scores_ids`."""
        found = self.token_scores_ids(prompt_ids, response_ids, **settings)
        return np.array([scores.rewards[-1] for scores in found])

    def token_scores_ids(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]],
        **settings: Any,
    ) -> list[TokenScores]:
        """The rewards ``[T]`` of all prefixes, or ``[1]`` of each complete completion. vLLM makes
        its own batches.

        Raises:
            ConfigError: similarities to a goal are requested.
            NonFiniteError: a reward is NaN or infinite; names the row.
        """
        if settings.get("goal") is not None:
            raise ConfigError(
                "vLLM gives no hidden states to compare with a goal; use the engine transformers "
                "(--engine), or no goal (--goal none)."
            )
        rows = [[*p, *r] for p, r in zip(prompt_ids, response_ids, strict=True)]
        counts = [len(ids) if self._tokens else 1 for ids in response_ids]
        names = settings.get("numbers") or range(1, len(rows) + 1)
        scores = []
        for number, values in enumerate(self._rewards(rows, [len(p) for p in prompt_ids])):
            if not np.isfinite(values).all():
                raise NonFiniteError(
                    f"A reward of row {names[number]} is {values[~np.isfinite(values)][0]}; "
                    "expected finite numbers. The checkpoint may be damaged, or its values "
                    "overflow in this dtype: try float32."
                )
            kept = values[len(values) - counts[number] :]
            scores.append(TokenScores(kept, None, len(prompt_ids[number])))
        return scores

    def _from_values(
        self, rows: list[list[int]], begins: Sequence[int]
    ) -> Iterator[np.ndarray]:
        """The classifier's values of each row: at every token, or at the last one alone."""
        from vllm import PoolingParams

        for output in self._llm.encode(
            [{"prompt_token_ids": row} for row in rows],
            pooling_params=PoolingParams(use_activation=False),
            pooling_task="token_classify" if self._tokens else "classify", use_tqdm=False,
        ):
            yield output.outputs.data.double().flatten().numpy()

    def _from_logits(
        self, rows: list[list[int]], begins: Sequence[int]
    ) -> Iterator[np.ndarray]:
        """The logit of every token, computed at the token before; 0 for the first one. Rewards of
        an autoregressive model are sums of log-probabilities from the beginning of the response."""
        from vllm import SamplingParams

        outputs = self._llm.generate(
            [{"prompt_token_ids": row} for row in rows],
            SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False),
            use_tqdm=False,
        )
        for row, begin, output in zip(rows, begins, outputs, strict=True):
            values = np.zeros(len(row))
            for place, (token, found) in enumerate(zip(row, output.prompt_logprobs, strict=True)):
                values[place] = 0.0 if found is None else found[token].logprob
            if self.autoregressive:
                values[:begin] = 0.0
                values = values.cumsum()
            yield values
