"""P(correct | prefix): cross-entropy of a response's outcome at every one of its tokens.

With outcomes of 0 and 1 the reward r after a token is the log-odds that the response will be
correct. Trained on samples of the policy, it is a value of prefixes from which the guide
``q_sharp`` computes the optimal guidance for every weight, so another weight needs no training
(Q♯, arXiv 2502.20548, whose value distribution is a Bernoulli distribution here).
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rewardsteer.distributed import global_mean
from rewardsteer.objectives.agreement import Values, labelled_figures
from rewardsteer.objectives.base import Measures, Objective, ObjectiveResult
from rewardsteer.objectives.numbers import check_name, mean_where, numbers_of
from rewardsteer.tensors import PairBatch, RewardOutput


def outcome(
    output: RewardOutput, batch: PairBatch, *, number: str = "label"
) -> ObjectiveResult:
    """−y·log σ(r) − (1 − y)·log σ(−r), the mean over the tokens of all labelled responses.

    Args:
        output: needs ``prefix_rewards [N]``, r after each token.
        batch: ``prefix_mask`` marks all N tokens of the responses; ``numbers`` holds y of each
            response ``[R]``, in [0, 1]: whether it is correct, or how often such responses are;
            NaN where it is not known.
        number: its name.
    """
    rewards, labels = _of_tokens(output, batch, number)
    known = torch.isfinite(labels)
    labels = labels.where(known, 0.0)
    losses = binary_cross_entropy_with_logits(rewards, labels, reduction="none")
    loss = global_mean((losses * known).sum(), known.sum())
    chance = rewards.detach().sigmoid()
    return ObjectiveResult(loss, {
        "probability": mean_where(chance, known), "label": mean_where(labels, known),
        "brier": mean_where((chance - labels).square(), known),
    })


def columns(output: RewardOutput, batch: PairBatch, number: str) -> Tensor:
    """``[N, 2]``: reward and label of each token."""
    return torch.stack([one.float() for one in _of_tokens(output, batch, number)], dim=1)


def figures(values: Values) -> dict[str, float]:
    """Brier score of all prefixes, and the area under the ROC curve over them."""
    def squares(rewards: Values, labels: Values) -> Values:
        chance: Values = torch.from_numpy(rewards).sigmoid().numpy()
        return (chance - labels) ** 2

    return labelled_figures(values, "brier", squares)


def _of_tokens(output: RewardOutput, batch: PairBatch, number: str) -> tuple[Tensor, Tensor]:
    """Rewards and labels ``[N]``."""
    rewards = output.prefix_rewards
    assert rewards is not None, "named in `needs`"
    rows = batch.prefix_mask.nonzero()[:, 0]
    return rewards, numbers_of(batch, number).to(rewards.dtype)[rows]


def build(number: str = "label") -> Objective:
    """The objective with its options bound.

    Raises:
        ConfigError: ``number`` is no name.
    """
    name = check_name("outcome", "number", number)
    return Objective(
        "outcome",
        lambda output, batch: outcome(output, batch, number=name),
        rows="responses",
        needs=frozenset({"prefix_rewards"}),
        prefixes="all",
        numbers=(name,),
        measures=Measures(
            lambda output, batch: columns(output, batch, name), figures,
            names=("auroc", "brier"),
        ),
    )
