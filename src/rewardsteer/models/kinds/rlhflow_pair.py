"""RLHFlow's pair preference models (RLHFlow/pair-preference-model-LLaMA3-8B): a chat model answers
which of two responses is better, A or B (arXiv 2405.07863)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rewardsteer.data.text_ids import bare_ids
from rewardsteer.errors import CheckpointError
from rewardsteer.models.kinds.parts import replace_outputs, require_chat_template, single_id
from rewardsteer.models.kinds.scorer_kind import ScorerKind
from rewardsteer.models.limits import position_limit
from rewardsteer.models.pair_scorer import PairScorer


class RlhflowPair(PairScorer, ScorerKind):
    """softmax over the logits of ``A`` and ``B`` that follow one user turn with the dialogue and
    both responses. The beginning of text is left out, as published. Such a folder is that of any
    language model, so it is never recognised.

    Args:
        model: a causal language model; its output layer is cut down to the two tokens.
        tokenizer: with a chat template.
        options: see `PairScorer`.

    Raises:
        CheckpointError: the tokenizer has no chat template.
    """

    kind = "rlhflow_pair"
    summary = "causal language model that answers which of two responses is better, A or B"
    compares = True
    activation = "softmax of 'A' and 'B'"
    auto_class = "AutoModelForCausalLM"

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        require_chat_template(tokenizer, self.kind, self.name, CheckpointError)
        self.position_limit = position_limit(model.config)
        letters = [single_id(tokenizer, letter, "A and B") for letter in "AB"]
        replace_outputs(model, lambda rows: rows[letters])

    def encode_pair(self, turns: Sequence[str], first: str, second: str) -> list[int]:
        """One user turn in the chat template."""
        roles = ("user", "assistant")
        context = "".join(f"\n<turn> {roles[at % 2]}\n {text}" for at, text in enumerate(turns))
        text = f"[CONTEXT] \n{context}\n [RESPONSE A] {first} [RESPONSE B] {second} \n"
        written = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False
        )
        if self.tokenizer.bos_token:
            written = written.replace(self.tokenizer.bos_token, "")
        return bare_ids(written, self.tokenizer)

    def first_wins(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The share of ``A`` behind the last token."""
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        rows = torch.arange(len(ids), device=ids.device)
        shares: Tensor = logits[rows, mask.sum(1) - 1].float().softmax(-1)[:, 0]
        return shares
