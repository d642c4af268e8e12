"""Whether a policy and a reward model speak of the same tokens, and a method of the same head.

Guided decoding adds rewards to logits by token id, so both tokenizers must give every id the same
token. What lies beyond the tokenizers does not matter: embeddings padded to a round size, or a
special token (an added padding token, say) that only one of the two has.

Where several reward models guide at once, each of them must fit.
"""

import logging
from collections.abc import Sequence
from typing import Any

from rewardsteer.errors import MismatchError
from rewardsteer.models.checkpoint import CheckpointCard

logger = logging.getLogger(__name__)


def members(scorer: Any) -> Sequence[Any]:
    """The reward models that an ensemble is made of; a single one's only member is itself."""
    several: Sequence[Any] = getattr(scorer, "members", (scorer,))
    return several


def check_vocabularies(policy_tokenizer: Any, scorer: Any) -> None:
    """`check_vocabulary` of the policy with every reward model."""
    for one in members(scorer):
        check_vocabulary(policy_tokenizer, one.tokenizer)


def check_vocabulary(policy_tokenizer: Any, reward_tokenizer: Any) -> None:
    """Refuse two tokenizers that give one id different tokens.

    Raises:
        MismatchError: names both tokenizers, their sizes and the first token that differs.
    """
    policy, reward = _tokens(policy_tokenizer), _tokens(reward_tokenizer)
    special = _special(policy_tokenizer) | _special(reward_tokenizer)
    paddings = (_padding(policy_tokenizer), _padding(reward_tokenizer))
    for index in sorted(policy.keys() | reward.keys()):
        ours, theirs = policy.get(index), reward.get(index)
        if ours is None or theirs is None:
            if (ours or theirs) in special:
                continue
        elif ours == theirs or (ours, theirs) == paddings:
            continue
        raise MismatchError(
            f"The policy's tokenizer {_name(policy_tokenizer)} ({len(policy)} tokens) and the "
            f"reward model's tokenizer {_name(reward_tokenizer)} ({len(reward)} tokens) must give "
            f"every id the same token, but id {index} is {_show(ours)} in the first and "
            f"{_show(theirs)} in the second; use a reward model trained on the policy's tokenizer."
        )


def check_head(method: str, scorer: Any, needed: str, *, single: bool = False) -> None:
    """Refuse a reward model whose head is of the wrong kind for a decoding method.

    Args:
        method: name of the method, for the message.
        scorer: the reward model, an ensemble, or None when the user gave none.
        needed: ``scalar``, ``vocabulary`` or ``any`` (of one reward model).
        single: the method takes one reward model.

    Raises:
        MismatchError: no reward model, the wrong head, or several where one is needed.
    """
    if scorer is None:
        raise MismatchError(
            f"The method {method!r} needs a reward model and none was given; pass one with "
            "--reward-model."
        )
    meaning = {
        "scalar": "a scalar head (one reward per prefix)",
        "vocabulary": "a vocabulary head (one reward per next token)",
    }
    fitting = {
        "scalar": "args, pargs, cd, cards, speculative_rejection or best_of_n",
        "vocabulary": "farma, genarm or best_of_n",
    }
    several = members(scorer)
    if (single or needed == "any") and len(several) > 1:
        raise MismatchError(
            f"The method {method!r} takes one reward model, got {len(several)}; leave out all but "
            "one, or use a method that adds rewards to next-token logits."
        )
    for one in several:
        if needed not in ("any", one.head_kind):
            raise MismatchError(
                f"The method {method!r} needs a reward model with {meaning[needed]}, but "
                f"{_told(one)} has {meaning[one.head_kind]}; use it with {fitting[one.head_kind]}, "
                "or train another."
            )


def natural_method(card: CheckpointCard) -> str:
    """The method that a reward model was trained for."""
    if card.head.kind == "vocabulary":
        return "genarm" if card.reads_log_probabilities else "farma"
    return "pargs" if "partial" in card.objective.split("+") else "args"


def trained_with(scorer: Any, objective: str) -> bool:
    """Whether some reward model says that an objective took part in its training."""
    return any(objective in _objectives(one) for one in members(scorer))


def check_training(method: str, scorer: Any, fitting: Sequence[str], others: str) -> None:
    """Refuse a reward model that says it was trained on something else; warn where it says nothing.

    Args:
        method: name of the method, for the message.
        scorer: the reward model, or an ensemble.
        fitting: objectives, one of which must have taken part in its training.
        others: methods that would take such a reward model, for the message.

    Raises:
        MismatchError: names the objective it was trained with.
    """
    wanted = " or ".join(repr(name) for name in fitting)
    for one in members(scorer):
        if not _objectives(one):
            logger.warning(
                "The reward model does not say what it was trained on; %s needs one trained with "
                "the objective %s.", method, wanted,
            )
        elif not any(name in _objectives(one) for name in fitting):
            raise MismatchError(
                f"The method {method!r} needs a reward model trained with the objective {wanted}, "
                f"but {_told(one)} was trained with {one.objective!r}; use it with {others}, or "
                "train another."
            )


def _objectives(scorer: Any) -> list[str]:
    """Names of the objectives that took part in the training; none where it is not known. A model
    whose rewards are values ended with another one than ``autoregressive``."""
    names = [name for name in getattr(scorer, "objective", "").split("+") if name]
    if getattr(scorer, "reading", "") == "value":
        names = [name for name in names if name != "autoregressive"]
    return names


def _told(scorer: Any) -> str:
    return getattr(scorer, "name", "") or "the given one"


def _tokens(tokenizer: Any) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}


def _padding(tokenizer: Any) -> str | None:
    """The token that does nothing but pad; None where padding has another meaning too."""
    token: str | None = tokenizer.pad_token
    return None if token in (tokenizer.eos_token, tokenizer.bos_token) else token


def _special(tokenizer: Any) -> set[str]:
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | set(tokenizer.all_special_tokens)


def _name(tokenizer: Any) -> str:
    return repr(str(tokenizer.name_or_path) or type(tokenizer).__name__)


def _show(token: str | None) -> str:
    return "absent" if token is None else repr(token)
