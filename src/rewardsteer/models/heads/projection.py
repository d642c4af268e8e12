"""The output layer of a causal language model as a layer of rewards."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from rewardsteer.errors import CheckpointError
from rewardsteer.kernels.policy_backups import policy_mean, policy_top_k
from rewardsteer.kernels.precision import wide_linear
from rewardsteer.kernels.vocabulary_max import gather_products, vocabulary_argmax
from rewardsteer.kernels.vocabulary_soft import OutputLayer, vocabulary_logsumexp
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.layers import share
from rewardsteer.models.known_ids import id_count
from rewardsteer.models.logits import make_neutral
from rewardsteer.models.sharding import gathered
from rewardsteer.tensors import PolicyBackup


class RewardProjection(nn.Linear):
    """The output layer of a causal language model, with calls that compute some of its logits, or a
    maximum over them, without holding all.

    Sharded training (FSDP, ZeRO-3) gathers a layer's parameters around its call and nowhere else,
    so everything is computed by a call. A plain call gives the logits, as generation expects.

    Attributes:
        generated: the maximum and the soft maximum range over the first so many tokens, which can
            be generated; None: over all. Embeddings padded to a round size have rows that no token
            has.
    """

    generated: int | None = None

    def forward(
        self, hidden: Tensor,
        read: Literal[
            "logits", "rewards", "tokens", "candidates", "best", "soft", "backup"
        ] = "logits", *, tokens: Tensor | None = None, temperature: float = 1.0,
        backup: PolicyBackup | None = None, policy: OutputLayer | None = None,
    ) -> Tensor:
        """The result that ``read`` names.

        Args:
            hidden: ``[..., D]``; ``[N, D]`` for ``best`` and ``soft``.
            read: ``logits`` ``[..., V]`` as the model computes them; ``rewards``: the same in
                float32 or wider, like all that follow; ``tokens``: those of ``tokens [...]``;
                ``candidates``: those of ``tokens [N, K]``, several of a state;
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
        if read == "candidates":
            assert tokens is not None, "which tokens to read"
            states = hidden[:, None].expand(-1, tokens.shape[1], -1)
            return gather_products(states, self.weight, tokens, self.bias)
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
    count = min(id_count(tokenizer), rows)
    if tokenizer.pad_token_id == count - 1 and tokenizer.pad_token_id != tokenizer.eos_token_id:
        count -= 1
    return count


def limit_tokens(model: Any, tokenizer: Any) -> None:
    """Limit a causal language model's `RewardProjection` to tokens that can be generated."""
    layer = model.get_output_embeddings()
    layer.generated = count_tokens(tokenizer, layer.out_features)


def open_vocabulary(base: Any, head: HeadConfig) -> Any:
    """Untie a language model's output layer from the embeddings, initialise it, and make its logits
    plain products of it, in place; returns the model."""
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
