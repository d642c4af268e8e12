"""One reward per next token: Q(h)[v] = r(x, y∘v) (FaRMA, arXiv 2502.04517)."""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rewardsteer.errors import CheckpointError
from rewardsteer.kernels.policy_backups import policy_mean, policy_top_k
from rewardsteer.kernels.precision import wide_linear
from rewardsteer.kernels.vocabulary_max import gather_products, vocabulary_argmax
from rewardsteer.kernels.vocabulary_soft import OutputLayer, vocabulary_logsumexp
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.base import Head
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.layers import share
from rewardsteer.models.logits import check_saved, make_neutral
from rewardsteer.models.sharding import gathered
from rewardsteer.tensors import PolicyBackup


class RewardProjection(nn.Linear):
    """The output layer of a causal language model, whose logits can be read without making all.

    Sharded training (FSDP, ZeRO-3) gathers a layer's parameters around its call and nowhere else,
    so every reading of them is a call. A plain call gives the logits, as generation expects it.

    Attributes:
        generated: the maximum and the soft maximum range over the first so many tokens, which can
            be generated; None: over all. Embeddings padded to a round size have rows that no token
            has.
    """

    generated: int | None = None

    def forward(
        self, hidden: Tensor,
        read: Literal["logits", "rewards", "tokens", "best", "soft", "backup"] = "logits", *,
        tokens: Tensor | None = None, temperature: float = 1.0,
        backup: PolicyBackup | None = None, policy: OutputLayer | None = None,
    ) -> Tensor:
        """What ``read`` names.

        Args:
            hidden: ``[..., D]``; ``[N, D]`` for ``best`` and ``soft``.
            read: ``logits`` ``[..., V]`` as the model computes them; ``rewards``: the same in
                float32 or wider, like all that follow; ``tokens``: those of ``tokens [...]``;
                ``best``: the maximum ``[N]`` over the first ``generated``; ``soft``: the soft
                maximum ``[N]`` over them with uniform p, see `vocabulary_logsumexp`; ``backup``:
                the value ``[N]`` over them under a policy.
            tokens: see ``read``.
            temperature: of ``soft``, in units of the logits.
            backup, policy: of ``backup``; the policy's output layer may have more rows.
        """
        if read == "logits":
            return super().forward(hidden)
        if read == "rewards":
            return wide_linear(hidden, self.weight, self.bias)
        if read in ("soft", "best", "backup"):
            real = self.generated
            weight, bias = self.weight[:real], None if self.bias is None else self.bias[:real]
            if read == "backup":
                assert backup is not None, "which backup"
                assert policy is not None, "a backup under a policy needs one"
                return _policy_backup(hidden, weight, bias, backup, policy)
            if read == "soft":
                return vocabulary_logsumexp(hidden, weight, bias, temperature=temperature)
            tokens = vocabulary_argmax(hidden, weight, bias)
        assert tokens is not None, "which tokens to read"
        return gather_products(hidden, self.weight, tokens, self.bias)

    @classmethod
    def sharing(cls, layer: nn.Linear) -> "RewardProjection":
        """A layer of the same parameters, no copies of them."""
        return share(cls, layer)


def _policy_backup(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, backup: PolicyBackup, policy: OutputLayer
) -> Tensor:
    """Values ``[N]`` over the V rows of ``weight``, under the policy's first V tokens."""
    count = len(weight)
    own_bias = None if policy.bias is None else policy.bias[:count]
    policy = OutputLayer(policy.hidden, policy.weight[:count], own_bias)
    if backup.kind == "mean":
        return policy_mean(hidden, weight, bias, policy)
    if backup.kind == "top_k":
        return policy_top_k(hidden, weight, bias, policy, backup.tokens)
    return vocabulary_logsumexp(
        hidden, weight, bias, temperature=backup.temperature, base=policy
    )


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
        "best_next_token", "soft_next_token", "policy_backups", "log_probabilities",
    }
    gives_next_token = True
    offset = 1
    auto_class = "AutoModelForCausalLM"
    layer_class = RewardProjection
    description = "a vocabulary head (one reward per next token)"
    summary = "vocabulary head: one reward for every next token in one call"
    pipeline_tag = "text-generation"

    def __init__(self, projection: nn.Linear) -> None:
        plain = type(projection) is nn.Linear
        super().__init__(RewardProjection.sharing(projection) if plain else projection)

    @classmethod
    def layer(cls, model: Any) -> Any:
        """The output layer."""
        return model.get_output_embeddings()

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
    ) -> None:
        """See `Head.attach`."""
        open_vocabulary(model, config.model_copy(update={"init": "lm_head"}) if trained else config)

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
        """See `Head.check_saved`."""
        check_saved(model, folder, name)

    def note(self, card: CheckpointCard, tokenizer: Any) -> CheckpointCard:
        """The card with the number of tokens that can be generated."""
        return card.model_copy(update={"tokens": count_tokens(tokenizer, self.vocabulary_size)})

    @classmethod
    def label(cls, config: HeadConfig) -> str:
        """Its kind and what it started from."""
        return f"{config.kind}, started from {config.init}"

    @classmethod
    def loading(cls, config: HeadConfig) -> str:
        """See `Head.loading`."""
        return "vocabulary"

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return self.projection.out_features

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
