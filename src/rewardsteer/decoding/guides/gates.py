"""Gates: at which tokens a guide acts. At the other tokens the policy draws alone.

    p_gated(v | s) = g(s) · p_guided(v | s) + (1 − g(s)) · p(v | s),   g(s) is 0 or 1

g depends on the response so far and on nothing else in the batch, so the KL divergence of gated
responses from the policy's is the sum over the guided tokens alone.

Shapes: B rows, V the policy's logits a row.
"""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from rewardsteer.decoding.config import DecodingConfig

# Gates that measure the policy's logits, and the one that measures guided scores too.
_OF_POLICY, OF_GUIDE = ("entropy", "top1"), "kl"


class Gate:
    """The gate of one response.

    A gate with a threshold guides the tokens with a measure at or above it. A gate with a share
    compares the measure with those of the response's own earlier tokens: a token is guided where
    fewer than ``share`` of the measures so far, its own included, are greater. Share 1 guides all
    tokens, 0 none.

    Args:
        config: ``gate``, ``gate_threshold``, ``gate_share``; for a random gate ``seed``.
        name: of the response, from which a random gate draws.

    Attributes:
        temperature: of what the response is drawn from; 1 in greedy mode.
    """

    def __init__(self, config: DecodingConfig, name: str = "") -> None:
        self.kind = config.gate
        self.temperature = config.temperature if config.mode == "sample" else 1.0
        self._config, self.name = config, name
        self._measures: list[float] = []

    def decide(self, step: int, measure: float) -> bool:
        """Decide whether the token after ``step`` generated ones is guided, and keep its measure.

        Args:
            step: the response may have lost tokens since the last call, not gained several.
            measure: of this token, see `measures` and `pulls`; ``random`` and ``first`` ignore it.
        """
        share = self._config.gate_share
        if self.kind == "always":
            return True
        if self.kind == "random":
            assert share is not None, "the settings need one"
            return random.Random(f"{self._config.seed}/gate/{self.name}/{step}").random() < share
        if self.kind == "first":
            assert share is not None, "the settings need one"
            return step < share * self._config.max_new_tokens
        if share is None:
            assert self._config.gate_threshold is not None, "the settings need one of the two"
            return measure >= self._config.gate_threshold
        del self._measures[step:]
        greater = sum(one > measure for one in self._measures)
        self._measures.append(measure)
        return greater < share * len(self._measures)

    def copy(self, name: str) -> "Gate":
        """The gate of a response that continues from this one."""
        other = Gate(self._config, name)
        other._measures = list(self._measures)
        return other

    def forget(self, step: int) -> None:
        """Drop the measures of tokens after ``step`` generated ones."""
        del self._measures[step + 1 :]


def measures(gates: Sequence[Gate], logits: Tensor) -> list[float]:
    """Measures of the gates ``[B]`` that depend only on the policy's logits ``[B, V]``; 0 for all
    other gates.

    ``entropy``: of the policy at temperature 1, in nats. ``top1``: the policy's probability of all
    tokens but its best.
    """
    if not {gate.kind for gate in gates} & set(_OF_POLICY):
        return [0.0] * len(gates)
    logs = logits.float().log_softmax(dim=-1)
    entropies = torch.special.entr(logs.exp()).sum(dim=-1)
    both = torch.stack([entropies, -torch.expm1(logs.amax(dim=-1))]).tolist()
    return [
        both[_OF_POLICY.index(gate.kind)][row] if gate.kind in _OF_POLICY else 0.0
        for row, gate in enumerate(gates)
    ]


def pulls(gates: Sequence[Gate], logits: Tensor, scores: Tensor) -> list[float]:
    """Measures of the gate ``kl``: KL(guided ‖ plain) of the distributions that each response is
    drawn from, in nats, on the tokens that guidance leaves possible.

    Args:
        gates: one for each row.
        logits: of the policy ``[B, V]``.
        scores: guided ``[B, V]``.
    """
    warmth = scores.new_tensor([gate.temperature for gate in gates])[:, None]
    found: list[float] = divergences(logits.float() / warmth, scores / warmth).tolist()
    return found


def divergences(logits: Tensor, scores: Tensor) -> Tensor:
    """KL(softmax(scores) ‖ softmax(logits)) ``[B]``, in nats, on the tokens with finite scores."""
    guided = scores.log_softmax(dim=-1)
    plain = logits.masked_fill(guided.isneginf(), -torch.inf).log_softmax(dim=-1)
    terms = guided.exp() * (guided - plain)
    # Tokens that are impossible in both are −∞ − −∞.
    return terms.nan_to_num(nan=0.0).sum(dim=-1).clamp(min=0.0)
