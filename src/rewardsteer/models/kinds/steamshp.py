"""SteamSHP (stanfordnlp/SteamSHP-flan-t5-large and -xl): a T5 model answers which of two responses
is better, A or B (trained on the Stanford Human Preferences data and on HH-RLHF)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rewardsteer.errors import CheckpointError, DataError
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.parts import single_id
from rewardsteer.models.kinds.scorer_kind import ScorerKind
from rewardsteer.models.pair_scorer import PairScorer


class SteamShp(PairScorer, ScorerKind):
    """softmax over the logits of ``A`` and ``B`` for the first token of the answer. Such a folder
    is that of any T5 model, so it is never recognised.

    Args:
        model: an encoder-decoder language model.
        tokenizer: its own.
        length: most tokens of a pair, its end included. T5 has no limit of its own; SteamSHP was
            trained on at most 512.
        options: see `PairScorer`.
    """

    kind = "steamshp"
    summary = "T5 that answers which of two responses is better, A or B (SteamSHP)"
    compares = True
    activation = "softmax of 'A' and 'B'"
    noted = ("activation", "length")
    auto_class = "T5ForConditionalGeneration"

    def __init__(self, model: Any, tokenizer: Any, *, length: int = 512, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        self.position_limit = self.length = length
        self._letters = [single_id(tokenizer, letter, "A and B") for letter in "AB"]

    @classmethod
    def check(cls, folder: FolderDescription) -> None:
        """A T5 model."""
        if folder.config.get("model_type") != "t5":
            raise CheckpointError(
                f"Expected a T5 model at {folder.name}, as SteamSHP is one, got "
                f"{folder.architecture or 'no architecture'}; name the right kind."
            )

    def encode_pair(self, turns: Sequence[str], first: str, second: str) -> list[int]:
        """The text of the model card. Where the published use cuts the context, a pair that is too
        long is refused, because it is another one after the cut."""
        if len(turns) > 1:
            raise DataError(
                f"a {self.kind} model reads one context as text, got a conversation of "
                f"{len(turns)} turns; give the last question alone, or the dialogue as one text."
            )
        text = (
            f"POST: {turns[0]}\n\n RESPONSE A: {first}\n\n RESPONSE B: {second}\n\n Which response "
            "is better? RESPONSE"
        )
        return list(self.tokenizer(text)["input_ids"])

    def first_wins(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The share of ``A``."""
        start = ids.new_full((len(ids), 1), self.model.config.decoder_start_token_id)
        logits = self.model(
            input_ids=ids, attention_mask=mask, decoder_input_ids=start, use_cache=False
        ).logits
        shares: Tensor = logits[:, 0, self._letters].float().softmax(-1)[:, 0]
        return shares
