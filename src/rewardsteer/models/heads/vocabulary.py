"""One reward per next token: Q(h)[v] = r(x, y∘v) (FaRMA, arXiv 2502.04517)."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewardsteer.errors import CheckpointError
from rewardsteer.kernels.vocabulary_soft import OutputLayer
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.base import Head, saved_own
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.low_rank import build_own, sized_own
from rewardsteer.models.heads.projection import RewardProjection
from rewardsteer.models.logits import check_saved, make_neutral
from rewardsteer.models.placement import working_device
from rewardsteer.models.sharding import gathered
from rewardsteer.tensors import PolicyBackup


def install_projection(model: Any) -> None:
    """Make the output layer of a Hugging Face causal language model a `RewardProjection`, in place.
    The library puts a plain layer there whenever it loads a model or resizes its embeddings."""
    layer = model.get_output_embeddings()
    if type(layer) is nn.Linear:
        model.set_output_embeddings(RewardProjection.sharing(layer))


def count_tokens(tokenizer: Any, rows: int) -> int:
    """How many of an output layer's first ``rows`` belong to tokens that can be generated: those of
    the tokenizer, but for a padding token that was added at the end."""
    count = min(max(tokenizer.get_vocab().values()) + 1, rows)
    if tokenizer.pad_token_id == count - 1 and tokenizer.pad_token_id != tokenizer.eos_token_id:
        count -= 1
    return count


def limit_tokens(model: Any, tokenizer: Any) -> None:
    """Tell a causal language model's `RewardProjection` which tokens can be generated."""
    layer = model.get_output_embeddings()
    layer.generated = count_tokens(tokenizer, layer.out_features)


def open_vocabulary(base: Any, head: HeadConfig) -> Any:
    """Untie the output layer from the embeddings, set its start, and make logits plain products."""
    old = base.get_output_embeddings()
    if old is None:
        raise CheckpointError(f"{type(base).__name__} has no output layer to read rewards from.")
    factor = make_neutral(base)
    new = RewardProjection(
        old.in_features, old.out_features, bias=old.bias is not None,
        device=old.weight.device, dtype=old.weight.dtype,
    )
    with torch.no_grad(), gathered(old.parameters()):
        for name, parameter in new.named_parameters():
            parameter.copy_(getattr(old, name)).mul_(factor)
            if head.init == "zeros":
                parameter.zero_()
    base.set_output_embeddings(new)
    base.config.tie_word_embeddings = False
    # Without this the library would tie the two again when the folder is saved or loaded.
    base._tied_weights_keys = {}
    base.all_tied_weights_keys = {}
    return base


class VocabularyHead(Head):
    """Reads rewards off the output row of a causal language model.

    The reward of a prefix that ends in token y_t is the entry of y_t in the row before it:
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
        """See `Head.of`."""
        layer = cls.layer(model)
        return cls(layer if own is None else own.bound(layer))

    @classmethod
    def layer(cls, model: Any) -> Any:
        """The output layer."""
        return model.get_output_embeddings()

    @classmethod
    def restore(cls, model: Any, config: HeadConfig, folder: Path) -> nn.Module | None:
        """See `Head.restore`; parameters beside the output layer have the sizes they were saved
        with."""
        if config.layers == "linear":
            return None
        own = saved_own(folder, lambda state: sized_own(config, state))
        return own.to(working_device(cls.layer(model)))

    @classmethod
    def check_start(cls, config: HeadConfig, trained: HeadConfig, source: Any) -> None:
        """Refuse a reward model without an output layer.

        Raises:
            CheckpointError: says so.
        """
        if trained.kind != config.kind:
            raise CheckpointError(
                f"{source} is a reward model with a {trained.kind} head, which has no output layer "
                "to start a vocabulary head from; start from its base model."
            )
        if trained.layers != config.layers:
            raise CheckpointError(
                f"{source} is a reward model whose vocabulary head has the layers "
                f"{trained.layers!r}, and head.layers={config.layers} is asked for; set "
                f"head.layers={trained.layers} to go on with it, or start from its base model."
            )

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
        own = build_own(config, cls.layer(model))
        if own is not None:
            install_projection(model)
            if card is not None and card.head.kind == config.kind:
                return cls.restore(model, config, Path(source))
            return own.to(working_device(cls.layer(model)))
        open_vocabulary(model, config.model_copy(update={"init": "lm_head"}) if trained else config)
        return None

    @classmethod
    def open(cls, model: Any, card: CheckpointCard, folder: Path) -> None:
        """Make the output layer readable without making all logits; its maxima range over the
        tokens that can be generated."""
        install_projection(model)
        if card.tokens:
            model.get_output_embeddings().generated = card.tokens
        else:
            limit_tokens(model, load_tokenizer(folder))

    @classmethod
    def resized(cls, model: Any, tokenizer: Any) -> None:
        """Resized embeddings bring a plain layer back."""
        install_projection(model)
        limit_tokens(model, tokenizer)

    def check_saved(self, model: Any, folder: Path, name: str) -> None:
        """See `Head.check_saved`. Beside parameters of the head's own, the saved logits stay those
        of the language model."""
        if isinstance(self.projection, RewardProjection):
            check_saved(model, folder, name)

    def note(self, card: CheckpointCard, tokenizer: Any) -> CheckpointCard:
        """The card with the number of tokens that can be generated."""
        return card.model_copy(update={"tokens": count_tokens(tokenizer, self.vocabulary_size)})

    @classmethod
    def label(cls, config: HeadConfig) -> str:
        """Its kind and what it started from."""
        if config.layers == "linear":
            return f"{config.kind}, started from {config.init}"
        rank = f" of rank {config.rank}" if config.rank else ""
        return f"{config.kind}, {config.layers}{rank}, started from zeros"

    @classmethod
    def loading(cls, config: HeadConfig) -> str:
        """See `Head.loading`."""
        return "language model" if config.layers == "linear" else "package"

    @property
    def vocabulary_size(self) -> int:
        """V."""
        size: int = self.projection.out_features
        return size

    @property
    def token_count(self) -> int:
        """How many tokens the maximum and the soft maximum range over, at most V."""
        layer: Any = getattr(self.projection, "base_layer", self.projection)  # in peft's wrapper
        count: int | None = layer.generated
        return self.vocabulary_size if count is None else count

    def next_token(self, hidden: Tensor) -> Tensor:
        """Rewards ``[..., V]`` of all one-token extensions of the prefixes ending at ``hidden``."""
        rewards: Tensor = self.projection(hidden, "rewards")
        return rewards

    def best_next_token(self, hidden: Tensor) -> Tensor:
        """Rewards ``[N]`` of the best one-token extension, the maximum of `next_token` over the
        first `token_count` tokens, without ever holding all of them; differentiable. hidden
        ``[N, D]``."""
        best: Tensor = self.projection(hidden, "best")
        return best

    def soft_next_token(self, hidden: Tensor, temperature: float) -> Tensor:
        """τ · log of the mean of exp(`next_token` / τ) over the first `token_count` tokens ``[N]``,
        which is below the maximum and nears it as τ → 0; differentiable. hidden ``[N, D]``, τ > 0
        in units of rewards."""
        soft: Tensor = self.projection(hidden, "soft", temperature=temperature)
        return soft

    def policy_backup(self, hidden: Tensor, backup: PolicyBackup, policy: OutputLayer) -> Tensor:
        """See `Head.policy_backup`; over the first `token_count` tokens, differentiable."""
        value: Tensor = self.projection(hidden, "backup", backup=backup, policy=policy)
        return value

    def candidate_rewards(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Rewards ``[N, K]`` of several extensions of each prefix; hidden ``[N, D]``, tokens
        ``[N, K]``."""
        rewards: Tensor = self.projection(hidden, "candidates", tokens=tokens)
        return rewards

    def rewards_of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Rewards ``[...]`` of the extensions by ``tokens [...]`` of the prefixes ending at hidden
        ``[..., D]``, by one dot product a position, never the product with all of V."""
        rewards: Tensor = self.projection(hidden, "tokens", tokens=tokens)
        return rewards

    def log_probabilities(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities ``[...]`` of ``tokens [...]``, rewards read as logits over the first
        `token_count` tokens; no tensor of size positions × V is held. hidden ``[..., D]``."""
        soft = self.soft_next_token(hidden.flatten(0, -2), 1.0).view(tokens.shape)
        # The soft maximum at temperature 1 is the log-sum-exp less that of as many equal rewards.
        return self.rewards_of(hidden, tokens) - (soft + math.log(self.token_count))
