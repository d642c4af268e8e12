"""What the searches with a second policy share: a smaller one, the drafter, proposes steps, and the
policy writes those that are turned down."""

from rewardsteer.decoding.strategies.steps import StepSearch


class TwoPolicies(StepSearch):
    """Base of the searches with a second policy of the same tokens.

    The policy reads accepted steps when it is asked about them or for the next step, all in one
    pass. The reward model is asked about the drafter's samples alone, so that it reads on from
    what it has read: they take over the steps that the policy writes.
    """

    uses: tuple[str, ...] = ("step_separator", "step_tokens", "max_steps", "accept_reward")
    wants_drafter = True
    has_weight = takes_goal = False
    abilities = frozenset({"extend", "token_ids"})
    drafter_abilities = abilities
