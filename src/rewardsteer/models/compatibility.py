"""Whether a policy and a reward model have the same tokens, and a reward model the head needed.

Guided decoding adds rewards to logits by token id, so both tokenizers must give every id the same
token. What lies beyond the tokenizers does not matter: embeddings padded to a round size, or a
special token (an added padding token, say) that only one of the two has.

Where several reward models guide at once, each of them must fit.
"""

from collections.abc import Sequence
from typing import Any

from rewardsteer.errors import MismatchError
from rewardsteer.models.heads import HEADS
from rewardsteer.objectives import LOG_PROBABILITY


def reads_tokens(scorer: Any) -> bool:
    """Whether a reward model takes token ids, and not texts alone."""
    return bool(getattr(scorer, "reads_tokens", True))


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
    found = first_difference(policy_tokenizer, reward_tokenizer)
    if found is not None:
        index, ours, theirs = found
        raise MismatchError(
            f"The policy's tokenizer {_name(policy_tokenizer)} ({_size(policy_tokenizer)}) and the "
            f"reward model's tokenizer {_name(reward_tokenizer)} ({_size(reward_tokenizer)}) must "
            f"give every id the same token, but id {index} is {ours} in the first and {theirs} in "
            "the second; use a reward model trained on the policy's tokenizer."
        )


def first_difference(
    first: Any, second: Any, *, added: bool = False
) -> tuple[int, str, str] | None:
    """The lowest id to which two tokenizers give different tokens, and the tokens as a message
    shows them; None where they agree. A special token that only one of the two has, and two padding
    tokens, are no difference.

    Args:
        added: whether tokens that were added to a vocabulary may differ too.
    """
    ours, theirs = _tokens(first), _tokens(second)
    special = special_tokens(first) | special_tokens(second)
    paddings = (_padding(first), _padding(second))
    free = set(first.added_tokens_decoder) | set(second.added_tokens_decoder) if added else set()
    for index in sorted((ours.keys() | theirs.keys()) - free):
        one, other = ours.get(index), theirs.get(index)
        if one is None or other is None:
            if (one or other) in special:
                continue
        elif one == other or (one, other) == paddings:
            continue
        return index, _show(one), _show(other)
    return None


def check_head(user: str, scorer: Any, needed: str, remedy: str) -> None:
    """Refuse a reward model with the wrong head.

    Args:
        user: what needs it, as a sentence begins.
        needed: the head's name.
        remedy: what to do instead, as the sentence ends.

    Raises:
        MismatchError: the head is of the other kind.
    """
    if scorer.head_kind != needed:
        wanted, found = (HEADS.get(name).description for name in (needed, scorer.head_kind))
        raise MismatchError(
            f"{user} needs a reward model with {wanted}, but {shown_name(scorer)} has {found}; "
            f"{remedy}."
        )


def trained_with(scorer: Any, objective: str) -> bool:
    """Whether some reward model says that an objective took part in its training."""
    return any(objective in objectives_of(one) for one in members(scorer))


def objectives_of(scorer: Any) -> list[str]:
    """Names of the objectives that took part in the training; none where it is not known. Without
    those of log-probabilities where the rewards are values: training ended with another one."""
    names = [name for name in getattr(scorer, "objective", "").split("+") if name]
    if getattr(scorer, "reading", "") == "value":
        names = [name for name in names if name not in LOG_PROBABILITY]
    return names


def shown_name(scorer: Any) -> str:
    """What messages call a reward model."""
    return getattr(scorer, "name", "") or "the given one"


def _tokens(tokenizer: Any) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}


def _size(tokenizer: Any) -> str:
    return f"{len(_tokens(tokenizer))} tokens"


def _padding(tokenizer: Any) -> str | None:
    """The token that does nothing but pad; None where padding has another meaning too."""
    token: str | None = tokenizer.pad_token
    return None if token in (tokenizer.eos_token, tokenizer.bos_token) else token


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of a tokenizer's special tokens."""
    special = special_tokens(tokenizer)
    return {index for index, token in _tokens(tokenizer).items() if token in special}


def special_tokens(tokenizer: Any) -> set[str]:
    """A tokenizer's special tokens, as its vocabulary writes them."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | set(tokenizer.all_special_tokens)


def _name(tokenizer: Any) -> str:
    return repr(str(tokenizer.name_or_path) or type(tokenizer).__name__)


def _show(token: str | None) -> str:
    return "absent" if token is None else repr(token)
