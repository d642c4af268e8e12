"""One reward per next token: Q(h)[v] = r(x, y∘v) (FaRMA, arXiv 2502.04517)."""

import math
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from rewardsteer.errors import CheckpointError
from rewardsteer.kernels.vocabulary_soft import OutputLayer
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.base import Head, saved_own
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.low_rank import build_own, sized_own
from rewardsteer.models.heads.projection import (
    RewardProjection,
    count_tokens,
    install_projection,
    limit_tokens,
    open_vocabulary,
)
from rewardsteer.models.logits import check_saved
from rewardsteer.models.placement import put_beside
from rewardsteer.tensors import PolicyBackup


class VocabularyHead(Head):
    """Rewards are the logits of a causal language model.

    The reward of a prefix that ends in token y_t is the logit of y_t at the position before:
    r(x, y₁..t) = Q(h_{t-1})[y_t].

    The layer is the output layer of the language model. Where parameters are sharded it must be a
    `RewardProjection` (or peft's wrapper of one), see `install_projection`.
    """

    gives = Head.gives | {
        "best_next_token", "soft_next_token", "policy_backups", "candidate_rewards",
        "log_probabilities",
    }
    gives_next_token = True
    offset = 1
    auto_class = "AutoModelForCausalLM"
    layer_class = RewardProjection
    description = "a vocabulary head (one reward per next token)"
    summary = "vocabulary head: one reward for every next token in one call"
    pipeline_tag = "text-generation"

    def __init__(self, projection: nn.Module) -> None:
        if type(projection) is nn.Linear:
            projection = RewardProjection.sharing(projection)
        super().__init__(projection)

    @classmethod
    def of(cls, model: Any, own: Any) -> "VocabularyHead":
        layer = cls.layer(model)
        return cls(layer if own is None else own.bound(layer))

    @classmethod
    def layer(cls, model: Any) -> Any:
        """The output layer."""
        return model.get_output_embeddings()

    @classmethod
    def restore(cls, model: Any, config: HeadConfig, folder: Path) -> nn.Module | None:
        """See `Head.restore`; parameters of the head's own have their saved sizes."""
        if config.layers == "linear":
            return None
        own = saved_own(folder, lambda state: sized_own(config, state))
        return put_beside(cls.layer(model), own)

    @classmethod
    def check_start(cls, config: HeadConfig, trained: HeadConfig, source: Any) -> None:
        """See `Head.check_start`; refuses a reward model without an output layer, too."""
        if trained.kind != config.kind:
            raise CheckpointError(
                f"{source} is a reward model with a {trained.kind} head, which has no output layer "
                "to start a vocabulary head from; start from its base model."
            )
        super().check_start(config, trained, source)

    @classmethod
    def is_trained(cls, missing: list[str], card: CheckpointCard | None, source: str) -> bool:
        """Whether the model is a reward model; else its output layer is a language model's.

        Raises:
            CheckpointError: it has no output layer.
        """
        if any(name.startswith(("score", "lm_head")) for name in missing):
            raise CheckpointError(
                f"{source} has no output layer to start a vocabulary head from; start from "
                "the causal language model that it was made of."
            )
        return card is not None

    @classmethod
    def attach(
        cls, model: Any, config: HeadConfig, source: Any, card: CheckpointCard | None = None, *,
        trained: bool = False,
    ) -> nn.Module | None:
        """See `Head.attach`."""
        if config.layers == "linear":
            kept = config.model_copy(update={"init": "lm_head"}) if trained else config
            open_vocabulary(model, kept)
            return None
        install_projection(model)
        if card is not None and card.head.kind == config.kind:
            return cls.restore(model, config, Path(source))
        return put_beside(cls.layer(model), build_own(config, cls.layer(model)))

    @classmethod
    def open(cls, model: Any, card: CheckpointCard, folder: Path) -> None:
        """Make the output layer a `RewardProjection` with maxima over the tokens that can be
        generated."""
        install_projection(model)
        if card.tokens:
            model.get_output_embeddings().generated = card.tokens
        else:
            limit_tokens(model, load_tokenizer(folder))

    @classmethod
    def resized(cls, model: Any, tokenizer: Any) -> None:
        """See `Head.resized`: transformers puts a plain layer there."""
        install_projection(model)
        limit_tokens(model, tokenizer)

    def check_saved(self, model: Any, folder: Path, name: str) -> None:
        """See `Head.check_saved`; with parameters of its own, logits are the language model's."""
        if isinstance(self.projection, RewardProjection):
            check_saved(model, folder, name)

    def note(self, card: CheckpointCard, tokenizer: Any) -> CheckpointCard:
        """The card with the number of tokens that can be generated."""
        return card.model_copy(update={"tokens": count_tokens(tokenizer, self.vocabulary_size)})

    @classmethod
    def label(cls, config: HeadConfig) -> str:
        """Its kind and its initial weights."""
        if config.layers == "linear":
            return f"{config.kind}, started from {config.init}"
        rank = f" of rank {config.rank}" if config.rank else ""
        return f"{config.kind}, {config.layers}{rank}, started from {config.init}"

    @classmethod
    def loading(cls, config: HeadConfig) -> str:
        """See `Head.loading`."""
        return "language model" if config.layers == "linear" else "package"

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return int(self.projection.out_features)

    @property
    def token_count(self) -> int:
        """How many tokens the maximum and the soft maximum range over, at most V."""
        layer: Any = getattr(self.projection, "base_layer", self.projection)  # in peft's wrapper
        count: int | None = layer.generated
        return self.vocabulary_size if count is None else count

    def _read(self, hidden: Tensor, read: str, **options: Any) -> Tensor:
        # Under a device map the layer may lie on another device than the states.
        return cast(Tensor, self.projection(hidden, read, **options)).to(hidden.device)

    def next_token(self, hidden: Tensor) -> Tensor:
        """Rewards ``[..., V]`` of all one-token extensions of the prefixes ending at ``hidden``."""
        return self._read(hidden, "rewards")

    def best_next_token(self, hidden: Tensor) -> Tensor:
        """The maximum ``[N]`` of `next_token` over the first `token_count` tokens, without holding
        all of them; differentiable. hidden ``[N, D]``."""
        return self._read(hidden, "best")

    def soft_next_token(self, hidden: Tensor, temperature: float) -> Tensor:
        """τ · log of the mean of exp(`next_token` / τ) over the first `token_count` tokens ``[N]``,
        which is below the maximum and nears it as τ → 0; differentiable. hidden ``[N, D]``, τ > 0
        in units of rewards."""
        return self._read(hidden, "soft", temperature=temperature)

    def policy_backup(self, hidden: Tensor, backup: PolicyBackup, policy: OutputLayer) -> Tensor:
        """See `Head.policy_backup`; over the first `token_count` tokens, differentiable."""
        return self._read(hidden, "backup", backup=backup, policy=policy)

    def candidate_rewards(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """See `Head.candidate_rewards`."""
        return self._read(hidden, "candidates", tokens=tokens)

    def rewards_of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Rewards ``[...]`` of the extensions by ``tokens [...]`` of the prefixes ending at hidden
        ``[..., D]``, by one dot product a position, never the product with all of V."""
        return self._read(hidden, "tokens", tokens=tokens)

    def log_probabilities(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities ``[...]`` of ``tokens [...]``, rewards read as logits over the first
        `token_count` tokens; no tensor of size positions × V is held. hidden ``[..., D]``."""
        soft = self.soft_next_token(hidden.flatten(0, -2), 1.0).view(tokens.shape)
        # The soft maximum at temperature 1 is the log-sum-exp less that of as many equal rewards.
        return self.rewards_of(hidden, tokens) - (soft + math.log(self.token_count))
