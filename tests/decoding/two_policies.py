"""A small policy, a large one and rewards as tables, for methods with two policies."""

import itertools
import math

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method
from rewardsteer.decoding.second_models import check_drafter
from tests.decoding.tables import TableEngine, TableScorer, decode, toy_prompts

SMALL, LARGE = [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]
# A response of two steps, a token each.
REWARDS = {(0,): 1.0, (1,): 0.2, (2,): 0.9} | {
    y: 1.0 - 0.4 * abs(y[0] - y[1]) for y in itertools.product(range(3), repeat=2)
}


def respond(method, count, *, small=SMALL, large=LARGE, **settings):
    """Outcomes with their costs."""
    config = DecodingConfig(
        method=method, top_k=0, max_new_tokens=2, step_tokens=1, step_separator="", **settings
    )
    engines = [
        TableEngine(lambda y, p=p: [math.log(one) for one in p], 900) for p in (large, small)
    ]
    engines[1].tokenizer = engines[0].tokenizer
    scorer = TableScorer(lambda y: REWARDS[y], "scalar", 3)
    built = build_method(config, scorer, drafter=engines[1])
    check_drafter(built, engines[0])
    return decode(engines[0], built, config, toy_prompts(count))
