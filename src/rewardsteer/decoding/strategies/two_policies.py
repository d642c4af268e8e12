"""The base of searches with a second policy: a smaller one, the drafter, proposes steps, and the
policy writes those that are rejected."""

from rewardsteer.decoding.strategies.steps import StepSearch


class TwoPolicies(StepSearch):
    """Base of the searches with a second policy of the same tokens.

    The policy processes accepted steps in one pass, when it is asked about them or writes the next
    step. The reward model scores only the drafter's samples, which take over the steps that the
    policy writes, so that its cache is always continued.
    """

    uses: tuple[str, ...] = ("step_separator", "step_tokens", "max_steps", "accept_reward")
    wants_drafter = True
    has_weight = takes_goal = False
    abilities = frozenset({"extend", "token_ids"})
    drafter_abilities = abilities
