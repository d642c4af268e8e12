"""What packed rows hold, and when they are made."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.models.packing.plan import PackingCosts, balance_bins, common_beginning

token = st.integers(1, 4)


def tokens(least, most):
    return st.lists(token, min_size=least, max_size=most)


def pairs(count=5):
    row = st.fixed_dictionaries({
        "prompt_ids": tokens(0, 6), "chosen_ids": tokens(1, 6), "rejected_ids": tokens(1, 6),
    })
    return st.lists(row, min_size=1, max_size=count)


@settings(max_examples=200, deadline=None)
@given(
    pairs(), st.sampled_from(["left", "right"]),
    st.sampled_from([PackingCosts(0.0), PackingCosts(1.0, 0.0)]),
)
def test_every_token_is_found_with_its_position_and_sees_its_own_row_alone(data, side, costs):
    batch = to_batch(PairCollator(0, side, packing=costs)(data))
    if batch.packing is None:
        assert batch.computed_tokens == batch.padded_tokens
        return
    packing, real = batch.packing, batch.attention_mask.bool()
    assert batch.computed_tokens == packing.input_ids.numel() <= batch.padded_tokens
    places = packing.index[real]
    assert torch.equal(packing.input_ids.flatten()[places], batch.input_ids[real])
    positions = batch.attention_mask.cumsum(1) - 1
    assert torch.equal(packing.position_ids.flatten()[places], positions[real])
    width = packing.input_ids.shape[1]
    for row in range(len(batch.input_ids)):
        mine = packing.index[row][real[row]]
        # Places of a row are distinct, in order, and in one packed row.
        assert torch.equal(mine, mine.unique())
        assert len({int(place) // width for place in mine}) == 1
        packed = int(mine[0]) // width
        blocks, parents = packing.blocks[packed], packing.parents[packed]
        for place in (mine % width).tolist():
            seen = [
                other for other in range(place + 1)
                if blocks[other] == blocks[place] or blocks[other] == parents[place]
            ]
            assert seen == [one for one in (mine % width).tolist() if one <= place]
            if packing.segments is not None:
                assert seen == _seen(packing.segments.tolist(), packed, place)


def _seen(segments, row, place):
    ((_, start, _, first, last),) = [
        one for one in segments if one[0] == row and one[1] <= place < one[2]
    ]
    return [*range(first, last), *range(start, place + 1)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 12))
def test_bins_hold_each_item_once_about_equally(sizes, count):
    bins = balance_bins(sizes, count)
    assert sorted(item for several in bins for item in several) == list(range(len(sizes)))
    loads = [sum(sizes[item] for item in several) for several in bins]
    # The fullest bin got its last item when it was the emptiest.
    fullest = max(range(count), key=lambda number: loads[number])
    assert loads[fullest] - sizes[bins[fullest][-1]] <= min(loads)


def test_the_beginning_that_rows_share():
    assert common_beginning([[1, 2, 3]]) == 3
    assert common_beginning([[1, 2, 3], [1, 2, 4]]) == 2
    assert common_beginning([[1, 2], [1, 2, 4]]) == 2
    assert common_beginning([[5], [6]]) == 0
    assert common_beginning([[], [6]]) == 0


def long_prompt(count):
    return [
        {"prompt_ids": [1] * 50, "chosen_ids": [2, row + 3], "rejected_ids": [3, row + 3]}
        for row in range(count)
    ]


def test_prompts_are_read_once():
    batch = to_batch(PairCollator(0, packing=PackingCosts(1e-3))(long_prompt(4)))
    assert batch.padded_tokens == 8 * 52
    # What a pair has in common is the prompt; the last tokens of its responses are equal too, but
    # come after the difference.
    assert batch.computed_tokens == 4 * 54


def test_padding_is_kept_where_attention_would_cost_more_than_it_saves():
    assert to_batch(PairCollator(0, packing=PackingCosts(1.0))(long_prompt(4))).packing is None
    assert to_batch(PairCollator(0, packing=None)(long_prompt(4))).packing is None
    equal = [{"prompt_ids": [], "chosen_ids": [1] * 9, "rejected_ids": [2] * 9}] * 3
    assert to_batch(PairCollator(0, packing=PackingCosts(0.0))(equal)).packing is None


def test_short_rows_share_a_row():
    rows = [[1] * 8, [2] * 3, [3] * 3, [4] * 2]
    # One row of 16 would cost more attention than two of 8.
    fields = PackingCosts(1e-2).pack(
        rows, [[0], [1], [2], [3]], starts=[0] * 4, width=8, padding=0
    )
    ids, positions = fields["input_ids"].tolist(), fields["position_ids"].tolist()
    assert ids == [[1] * 8, [2, 2, 2, 3, 3, 3, 4, 4]]
    assert positions[1] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_free_attention_puts_everything_into_one_row():
    rows = [[1] * 8, [2] * 3, [3] * 5]
    fields = PackingCosts(0.0).pack(
        rows, [[0], [1], [2]], starts=[0] * 3, width=8, padding=0
    )
    assert fields["input_ids"].shape == (1, 16)


def test_each_form_is_taken_where_it_is_cheapest():
    """Prompts of 50, responses of 2: 54 tokens a pair instead of 104."""
    def form(costs):
        packing = to_batch(PairCollator(0, packing=costs)(long_prompt(4))).packing
        return packing and ("mask" if packing.segments is None else "segments")

    # A mask of 216 × 216 would cost more than the tokens that it saves; segments do not.
    assert form(PackingCosts(1.0)) is None
    assert form(PackingCosts(1.0, 0.0)) == "segments"
    # Three calls a pair, each as dear as a hundred tokens, would not pay either.
    assert form(PackingCosts(1e-3, 100.0)) == "mask"
    assert form(PackingCosts(1.0, 1000.0)) is None


def test_segments_stand_in_one_row_without_padding():
    batch = to_batch(PairCollator(0, packing=PackingCosts(1.0, 0.0))(long_prompt(4)))
    assert batch.packing.input_ids.shape == (1, 4 * 54)
    assert batch.packing.segments.tolist()[:3] == [
        [0, 0, 52, 0, 0], [0, 52, 54, 0, 50], [0, 54, 106, 54, 54],
    ]
