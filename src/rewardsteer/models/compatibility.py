"""Whether a policy and a reward model speak of the same tokens, and a method of the same head.

Guided decoding adds rewards to logits by token id, so both tokenizers must give every id the same
token. What lies beyond the tokenizers does not matter: embeddings padded to a round size, or a
special token (an added padding token, say) that only one of the two has.
"""

from typing import Any

from rewardsteer.errors import MismatchError


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


def check_head(method: str, scorer: Any, needed: str) -> None:
    """Refuse a reward model whose head is of the wrong kind for a decoding method.

    Args:
        method: name of the method, for the message.
        scorer: the reward model, or None when the user gave none.
        needed: ``scalar``, ``vocabulary`` or ``any``.

    Raises:
        MismatchError: no reward model, or the wrong head.
    """
    if scorer is None:
        raise MismatchError(
            f"The method {method!r} needs a reward model and none was given; pass one with "
            "--reward-model."
        )
    if needed in ("any", scorer.head_kind):
        return
    given = getattr(scorer, "name", "") or "the given one"
    meaning = {
        "scalar": "a scalar head (one reward per prefix)",
        "vocabulary": "a vocabulary head (one reward per next token)",
    }
    fitting = {"scalar": "args, pargs or best_of_n", "vocabulary": "farma or best_of_n"}
    raise MismatchError(
        f"The method {method!r} needs a reward model with {meaning[needed]}, but {given} has "
        f"{meaning[scorer.head_kind]}; use it with {fitting[scorer.head_kind]}, or train another."
    )


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
