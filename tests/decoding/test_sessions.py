"""A guide's session keeps each place's own count while rows come, move and go."""

import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method
from rewardsteer.decoding.guides.opening import open_session
from rewardsteer.decoding.guides.prefix import Prefix
from rewardsteer.models.prefix_state import EMPTY_ROW
from tests.decoding.tables import PROMPT, TableScorer

SIZE = 4


@pytest.mark.parametrize(("name", "head", "asked"), [("farma", "vocabulary", 1),
                                                     ("args", "scalar", 3)])
def test_an_empty_place_begins_at_nothing_and_the_others_keep_their_count(name, head, asked):
    scorer = TableScorer(lambda prefix: float(sum(prefix)), head, SIZE)
    config = DecodingConfig(method=name, top_k=3)
    session = open_session(build_method(config, scorer))

    def step(rows):
        ids = torch.tensor(rows)
        session.scores(
            Prefix(ids, torch.ones_like(ids), [0] * len(rows), [""] * len(rows)),
            torch.zeros(len(rows), SIZE),
        )

    step([[*PROMPT, 1], [*PROMPT, 2]])
    session.select([1, EMPTY_ROW])
    step([[*PROMPT, 2, 3], [*PROMPT, 1, 1]])
    session.select([EMPTY_ROW, 0, 1])
    assert [session.usage(row).calls for row in range(3)] == [0, 2 * asked, asked]
    assert [session.usage(row).steps for row in range(3)] == [0, 2, 1]
