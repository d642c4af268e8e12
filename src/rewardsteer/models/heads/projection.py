"""The output layer of a causal language model as a layer of rewards."""

from typing import Literal

from torch import Tensor, nn

from rewardsteer.kernels.policy_backups import policy_mean, policy_top_k
from rewardsteer.kernels.precision import wide_linear
from rewardsteer.kernels.vocabulary_max import gather_products, vocabulary_argmax
from rewardsteer.kernels.vocabulary_soft import OutputLayer, vocabulary_logsumexp
from rewardsteer.models.heads.layers import share
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
        read: Literal[
            "logits", "rewards", "tokens", "candidates", "best", "soft", "backup"
        ] = "logits", *, tokens: Tensor | None = None, temperature: float = 1.0,
        backup: PolicyBackup | None = None, policy: OutputLayer | None = None,
    ) -> Tensor:
        """What ``read`` names.

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
