"""The cached reader against the same model read whole, one row at a time."""

from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from rewardsteer.models.batching import refill
from rewardsteer.models.capabilities import supports_tree_mask
from rewardsteer.models.prefix_reader import PrefixReader
from rewardsteer.models.prefix_state import EMPTY_ROW, PrefixState
from tests.fakes import spread_weights, tiny_causal_lm

KINDS = ["llama", "gpt_neox", "gpt2"]
ROWS = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16]]


def left_pad(rows, pad=2):
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def whole(model, row):
    with torch.no_grad():
        return model(torch.tensor([row])).logits[0, -1]


def expected(model, rows):
    return torch.stack([whole(model, row) for row in rows])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_growing_prefixes_equal_whole_reads(kind, attention):
    model = tiny_causal_lm(kind)
    model.set_attn_implementation(attention)
    reader = PrefixReader(model)
    rows = [list(row) for row in ROWS]
    for step in range(4):
        torch.testing.assert_close(
            reader.step(*left_pad(rows)), expected(model, rows), rtol=1e-4, atol=1e-4
        )
        for index, row in enumerate(rows):
            row.append(20 + 3 * step + index)
    assert reader.forwards == [4, 4, 4]
    assert reader.tokens == [len(row) + 3 for row in ROWS]


def test_a_replaced_forward_still_gets_positions():
    """Hooks and decorators put a forward pass in place that names none of its arguments."""
    model = tiny_causal_lm("gpt2")
    forward, seen = model.forward, []

    def counting(*args, **options):
        seen.append(set(options))
        return forward(*args, **options)

    model.forward = counting
    reader, rows = PrefixReader(model), [list(row) for row in ROWS]
    for step in range(3):
        found = reader.step(*left_pad(rows))
        model.forward = forward
        torch.testing.assert_close(found, expected(model, rows), rtol=1e-4, atol=1e-4)
        model.forward = counting
        for index, row in enumerate(rows):
            row.append(20 + 3 * step + index)
    assert all({"position_ids", "logits_to_keep"} <= options for options in seen[-3:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("tree", [True, False])
def test_probe_equals_separate_reads(kind, attention, tree):
    model = tiny_causal_lm(kind)
    model.set_attn_implementation(attention)
    assert supports_tree_mask(model)
    reader = PrefixReader(model, tree=tree)
    rows = [list(row) for row in ROWS]
    for step in range(3):
        candidates = torch.tensor([[30, 31, 32, 33], [40, 41, 42, 43], [50, 51, 52, 53]]) + step
        answers = reader.score_candidates(*left_pad(rows), candidates)
        for index, row in enumerate(rows):
            several = [[*row, int(token)] for token in candidates[index]]
            torch.testing.assert_close(
                answers[index], expected(model, several), rtol=1e-4, atol=1e-4
            )
            row.append(int(candidates[index, (step + index) % 4]))
    # The state at the end is as if nothing but the prefix had been read.
    torch.testing.assert_close(
        reader.step(*left_pad(rows)), expected(model, rows), rtol=1e-4, atol=1e-4
    )
    if tree:
        # Prompt once, then K tokens a step: the taken candidate is not read again.
        assert reader.forwards == [3, 3, 3]
        assert reader.tokens == [len(row) + 12 for row in ROWS]
    else:
        assert reader.forwards == [1 + 2 + 1 + 12] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_taking_a_token_outside_the_candidates(kind):
    model = tiny_causal_lm(kind)
    reader = PrefixReader(model)
    rows = [list(row) for row in ROWS]
    reader.score_candidates(*left_pad(rows), torch.tensor([[30, 31]] * 3))
    rows[0].append(30)
    rows[1].append(77)
    rows[2].append(31)
    torch.testing.assert_close(
        reader.step(*left_pad(rows)), expected(model, rows), rtol=1e-4, atol=1e-4
    )


def test_changed_prefixes_are_read_again():
    model = tiny_causal_lm()
    reader = PrefixReader(model)
    reader.step(*left_pad(ROWS))
    for changed in (
        [[5, 6, 99 - 30, 8, 9, 10], [11, 12], [13, 14, 15, 16]],  # an inner token
        [ROWS[2], ROWS[0], ROWS[1]],  # reordered rows
        [row[:-1] for row in ROWS],  # shorter
        ROWS[:2],  # fewer rows
        [[5]] * 4,  # more rows, one token
    ):
        torch.testing.assert_close(
            reader.step(*left_pad(changed)), expected(model, changed), rtol=1e-4, atol=1e-4
        )


def test_same_prefix_costs_nothing():
    reader = PrefixReader(tiny_causal_lm())
    first = reader.step(*left_pad(ROWS))
    assert torch.equal(reader.step(*left_pad(ROWS)), first)
    assert reader.forwards == [1, 1, 1]


@pytest.mark.parametrize("probed", [False, True])
def test_selecting_rows(probed):
    model = tiny_causal_lm()
    reader = PrefixReader(model)
    rows = [list(row) for row in ROWS]
    reader.step(*left_pad(rows))
    if probed:
        reader.score_candidates(*left_pad(rows), torch.tensor([[30, 31]] * 3))
    reader.select([2, 0, 0])
    picked = [[*rows[2], 31], [*rows[0], 30], [*rows[0], 31]]
    width = max(map(len, ROWS)) + 1
    ids = torch.tensor([[2] * (width - len(row)) + row for row in picked])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in picked])
    torch.testing.assert_close(
        reader.step(ids, mask), expected(model, picked), rtol=1e-4, atol=1e-4
    )
    assert reader.tokens[1] == len(ROWS[0]) + (2 if probed else 1)


def close(answers, model, rows):
    torch.testing.assert_close(answers, expected(model, rows), rtol=1e-5, atol=1e-5)


def separate(model, rows, candidates):
    """Answers ``[B, K, X]`` by B·K separate whole reads."""
    return torch.stack([
        expected(model, [[*row, int(token)] for token in several])
        for row, several in zip(rows, candidates, strict=True)
    ])


def random_row(random, longest=40):
    return [random.randint(3, 79) for _ in range(random.randint(1, longest))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("probing", ["never", "always", "at times", "one by one"])
def test_rows_come_and_go(kind, probing):
    """Rows of any length take the places of others, while these go on; nothing is read twice."""
    model, random = tiny_causal_lm(kind), Random(kind + probing)
    reader = PrefixReader(model, tree=probing != "one by one")
    rows = [random_row(random) for _ in range(4)]
    costs = [[0, 0] for _ in rows]
    pending = [len(row) for row in rows]  # tokens of each row that were not read yet
    for step in range(14):
        probe = probing in ("always", "one by one") or (probing == "at times" and step % 3)
        candidates = torch.tensor([random.sample(range(3, 80), 3) for _ in rows])
        # The mask may be wider than any row: the caller's padding is no business of the cache.
        ids, mask = (torch.nn.functional.pad(t, (step % 3, 0)) for t in left_pad(rows))
        if probe:
            answers = reader.score_candidates(ids, mask, candidates)
            torch.testing.assert_close(
                answers, separate(model, rows, candidates), rtol=1e-5, atol=1e-5
            )
        else:
            close(reader.step(ids, mask), model, rows)
        for cost, new in zip(costs, pending, strict=True):
            cost[0] += 3 + (new > 0) if probing == "one by one" else bool(new or probe)
            cost[1] += new + 3 * bool(probe)
        assert [list(cost) for cost in zip(reader.forwards, reader.tokens, strict=True)] == costs
        settled = probe and reader.model._tree
        pending = []
        for row, several in zip(rows, candidates.tolist(), strict=True):
            row.append(random.choice(several) if random.random() < 0.8 else random.randint(3, 79))
            # A candidate that was taken was read already, unless it was read by itself.
            pending.append(0 if settled and row[-1] in several else 1)
        places = [place if random.random() < 0.7 else EMPTY_ROW for place in range(len(rows))]
        random.shuffle(places)
        places = places[random.randint(0, len(rows) > 2) :] + [EMPTY_ROW] * random.randint(0, 1)
        reader.select(places)
        rows = [random_row(random) if place == EMPTY_ROW else rows[place] for place in places]
        costs = [[0, 0] if place == EMPTY_ROW else costs[place] for place in places]
        pending = [
            len(row) if place == EMPTY_ROW else pending[place]
            for row, place in zip(rows, places, strict=True)
        ]
    assert reader.state is None or reader.state.ids.shape[1] <= max(map(len, rows))


def test_a_new_row_owes_nothing_to_the_one_before():
    """Even a prompt that begins like the row that left is read from its start."""
    model = tiny_causal_lm()
    reader = PrefixReader(model)
    reader.step(*left_pad(ROWS))
    reader.select([EMPTY_ROW, 1, EMPTY_ROW])
    rows = [[*ROWS[0], 20], [*ROWS[1], 21], ROWS[2]]
    close(reader.step(*left_pad(rows)), model, rows)
    assert reader.tokens == [len(rows[0]), len(rows[1]), len(rows[2])]
    assert reader.forwards == [1, 2, 1]


def test_rows_that_changed_places_are_answered_correctly():
    """Nobody named the change with `select`, so they are read from where they were alike."""
    model = tiny_causal_lm()
    reader = PrefixReader(model)
    rows = [[*ROWS[0], 20], [*ROWS[0], 21], ROWS[2]]
    reader.step(*left_pad(rows))
    before = list(reader.tokens)
    rows = [[*rows[1], 30], [*rows[0], 31], [*rows[2], 32]]
    close(reader.step(*left_pad(rows)), model, rows)
    new = [tokens - old for tokens, old in zip(reader.tokens, before, strict=True)]
    assert new == [2, 2, 1]


def test_a_wrong_candidate_is_never_taken_for_the_token_that_came():
    """A row goes on by two tokens, of which the first was no candidate."""
    model = tiny_causal_lm()
    reader = PrefixReader(model)
    reader.score_candidates(*left_pad(ROWS), torch.tensor([[30, 31]] * 3))
    rows = [[*ROWS[0], 77, 5], [*ROWS[1], 30, 6], [*ROWS[2], 31, 7]]
    close(reader.step(*left_pad(rows)), model, rows)


@pytest.mark.parametrize("selected", [False, True])
@pytest.mark.parametrize("probed", [False, True])
def test_what_was_given_or_taken_stays(selected, probed):
    """Neither answers that the caller holds nor its own tensors change later."""
    model = tiny_causal_lm()
    reader, candidates = PrefixReader(model), torch.tensor([[30, 31]] * 3)
    changed = [ROWS[0], [9, 9], ROWS[2]]

    def read(rows):
        ids, mask = left_pad(rows)
        return reader.score_candidates(ids, mask, candidates) if probed else reader.step(ids, mask)

    first = read(ROWS)
    held = first.clone()
    if selected:
        reader.select([0, EMPTY_ROW, 2])
    candidates = torch.tensor([[40, 41]] * 3)
    read(changed)
    assert torch.equal(first, held)
    assert candidates.tolist() == [[40, 41]] * 3


def test_the_answer_at_a_probed_prefix_is_kept():
    model = tiny_causal_lm()
    reader = PrefixReader(model)
    for _ in range(2):
        close(reader.step(*left_pad(ROWS)), model, ROWS)
        reader.score_candidates(*left_pad(ROWS), torch.tensor([[30, 31]] * 3))
    assert reader.forwards == [3, 3, 3]


def test_padding_is_dropped_with_the_row_that_needed_it():
    model = tiny_causal_lm()
    reader = PrefixReader(model)
    rows = [[5] * 100, [6, 7]]
    reader.step(*left_pad(rows))
    reader.select([EMPTY_ROW, 1])
    rows = [[8, 9, 10], [6, 7, 11]]
    close(reader.step(*left_pad(rows)), model, rows)
    assert reader.state.cache.get_seq_length() == 3


def test_a_mask_is_given_only_where_there_is_padding():
    model, seen = tiny_causal_lm(), []
    model.register_forward_pre_hook(
        lambda _, args, options: seen.append("attention_mask" in options), with_kwargs=True
    )
    reader = PrefixReader(model, cached=True)
    for rows in ([[5, 6], [7, 8]], [[5, 6, 1], [7, 8, 2]]):
        reader.step(*left_pad(rows))
    assert seen == [False, False]
    reader.select([0, EMPTY_ROW])
    reader.step(*left_pad([[5, 6, 1, 3], [7]]))
    reader.step(*left_pad([[5, 6, 1, 3, 4], [7, 5]]))
    assert seen[-1]


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_candidates_equal_separate_reads_in_double_precision(kind):
    model = tiny_causal_lm(kind, dtype=torch.float64)
    reader, rows = PrefixReader(model), [list(row) for row in ROWS]
    for step in range(3):
        candidates = torch.tensor([[30, 31, 32], [40, 41, 42], [50, 51, 52]]) + step
        torch.testing.assert_close(
            reader.score_candidates(*left_pad(rows), candidates), separate(model, rows, candidates),
            rtol=1e-8, atol=1e-8,
        )
        for row, several in zip(rows, candidates.tolist(), strict=True):
            row.append(several[step])
        reader.select([1, 0, 2])
        rows[0], rows[1] = rows[1], rows[0]
    assert reader.tokens == [len(row) - 3 + 9 for row in rows]


def test_adapters_are_read_with_positions():
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(
        r=2, target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True
    )
    model = get_peft_model(tiny_causal_lm("gpt2"), config).eval()
    torch.testing.assert_close(
        PrefixReader(model).step(*left_pad(ROWS)), expected(model, ROWS), rtol=1e-4, atol=1e-4
    )


def test_sliding_windows_are_kept():
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=80, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, sliding_window=5,
        )
    ).eval()
    spread_weights(model, 0.15)
    reader = PrefixReader(model)
    rows = [[5, 6], [7, 8, 9]]
    for step in range(8):  # the window is passed on the way
        if step == 5:  # and a new row takes the place of another
            reader.select([EMPTY_ROW, 1])
            rows[0] = [9, 8, 7, 6]
        candidates = torch.tensor([[30, 31], [40, 41]]) + step
        answers = reader.score_candidates(*left_pad(rows), candidates)
        for index, row in enumerate(rows):
            several = [[*row, int(token)] for token in candidates[index]]
            torch.testing.assert_close(
                answers[index], expected(model, several), rtol=1e-4, atol=1e-4
            )
            row.append(int(candidates[index, step % 2]))


def test_models_that_take_no_tree_mask_are_found_out():
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    model = BloomForCausalLM(
        BloomConfig(vocab_size=80, hidden_size=32, n_layer=2, n_head=2)
    ).eval()
    reader = PrefixReader(model)
    candidates = torch.tensor([[30, 31]])
    answers = reader.score_candidates(*left_pad([ROWS[0]]), candidates)
    assert not supports_tree_mask(model)
    several = [[*ROWS[0], 30], [*ROWS[0], 31]]
    torch.testing.assert_close(answers[0], expected(model, several), rtol=1e-4, atol=1e-4)


def test_padding_does_not_spoil_candidates_in_float16():
    """Scores of padding that are far below 0 would be −∞ under the mask's least number, everywhere
    in the row, and the softmax of that is NaN."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=80, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, attention_bias=True,
        attn_implementation="eager",
    )).eval()
    for layer in model.model.layers:
        # Of the slowest rotation, so that it hardly depends on the distance.
        layer.self_attn.q_proj.bias.data.view(2, 16)[:, 7] = 12.0
        layer.self_attn.k_proj.bias.data[7] = -12.0
    candidates = torch.tensor([[30, 31], [32, 33], [34, 35]])
    right = PrefixReader(model).score_candidates(*left_pad(ROWS), candidates)
    found = PrefixReader(model.half(), tree=True, cached=True).score_candidates(
        *left_pad(ROWS), candidates
    )
    torch.testing.assert_close(found.float(), right, rtol=0, atol=1e-2)


# --- rows that go back, rows that are asked about alone -------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_go_back_are_not_read_anew(kind):
    model = tiny_causal_lm(kind)
    reader = PrefixReader(model)
    rows = [list(row) for row in ROWS]
    reader.step(*left_pad(rows))
    for token in (21, 22, 23):
        rows = [[*row, token] for row in rows]
        reader.step(*left_pad(rows))
    read = list(reader.tokens)
    steps = [
        # The first goes back two tokens, the others grow.
        lambda rows: [rows[0][:-2], [*rows[1], 30], [*rows[2], 31]],
        # All go back: to the same place, by one, and to another last token.
        lambda rows: [rows[0][:-1], rows[1][:-3], [*rows[2][:-1], 40]],
        lambda rows: [[*row, 50] for row in rows],
    ]
    for step in steps:
        rows = step(rows)
        torch.testing.assert_close(
            reader.step(*left_pad(rows)), expected(model, rows), rtol=1e-4, atol=1e-4
        )
        read = [before + 1 for before in read]
        assert reader.tokens == read


@pytest.mark.parametrize("kind", KINDS)
def test_visiting_some_rows(kind):
    """Rows are asked about at different times, having grown by different numbers of tokens, or gone
    back; the others keep what they had."""
    model = tiny_causal_lm(kind)
    reader = PrefixReader(model)
    rows, seen = [list(row) for row in ROWS], [0, 0, 0]
    draw = torch.Generator().manual_seed(0)

    def ask(places):
        answers = reader.part_of(places, 3).step(*left_pad([rows[place] for place in places]))
        torch.testing.assert_close(
            answers, expected(model, [rows[place] for place in places]), rtol=1e-4, atol=1e-4
        )

    ask([1])
    assert (reader.forwards, reader.tokens) == ([0, 1, 0], [0, len(rows[1]), 0])
    for turn, places in enumerate(([0, 2], [2], [1, 0], [0, 1, 2], [1], [2, 0])):
        for place in range(3):
            back = (turn + place) % 3
            if back and len(rows[place]) > back + 1:
                del rows[place][-back:]
            grown = torch.randint(0, 6, (1 + place + turn % 2,), generator=draw)
            rows[place] += [20 + int(token) for token in grown]
        ask(places)
    # Only what was new since a row's last visit counts.
    assert sum(reader.forwards) == 1 + 2 + 1 + 2 + 3 + 1 + 2
    seen = list(reader.tokens)
    rows = [[*row, 60, 61] for row in rows]
    ask([0, 2])
    assert reader.tokens == [seen[0] + 2, seen[1], seen[2] + 2]
    # A row that leaves and one that comes.
    reader.select([2, EMPTY_ROW, 0])
    rows = [rows[2], [7, 8, 9], rows[0]]
    assert reader.tokens == [seen[2] + 2, 0, seen[0] + 2]
    rows[0].append(62)
    ask([0, 1])
    assert reader.tokens == [seen[2] + 3, 3, seen[0] + 2]
    # Everything together again, as one step.
    torch.testing.assert_close(
        reader.step(*left_pad(rows)), expected(model, rows), rtol=1e-4, atol=1e-4
    )


def test_asking_again_about_the_same_reads_the_last_token():
    reader = PrefixReader(tiny_causal_lm())
    first = reader.part_of([0, 1, 2], 3).step(*left_pad(ROWS))
    again = reader.part_of([1], 3).step(*left_pad([ROWS[1]]))
    torch.testing.assert_close(again[0], first[1], rtol=1e-4, atol=1e-4)
    assert reader.tokens == [len(ROWS[0]), len(ROWS[1]) + 1, len(ROWS[2])]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_known_tokens_are_what_rows_share_with_the_cache(data):
    """Rows that all grow alike take a short way; one that does anything else sends all the long
    way. Compared with counting by hand."""
    cached = data.draw(st.lists(st.lists(st.integers(1, 3), max_size=6), min_size=1, max_size=4))
    more = data.draw(st.integers(0, 2))
    given_rows = [row + data.draw(st.lists(st.integers(1, 3), min_size=more, max_size=more))
                  for row in cached]
    for place in data.draw(st.sets(st.integers(0, len(cached) - 1))):
        given_rows[place] = data.draw(st.lists(st.integers(1, 3), max_size=7))
    # What stands in a cached row's padding says nothing.
    ids, mask = left_pad(cached, pad=data.draw(st.integers(0, 3)))
    state = PrefixState(None, ids, mask.sum(dim=1), torch.empty(len(cached), 0))
    prefixes, lengths = left_pad(given_rows)[0], torch.tensor([len(row) for row in given_rows])
    if not ids.shape[1] or not prefixes.shape[1]:
        return
    expected = [
        next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
             min(len(ours), len(theirs)))
        for ours, theirs in zip(cached, given_rows, strict=True)
    ]
    assert state.known(prefixes, lengths).tolist() == expected
    assert state.shared(torch.arange(len(cached)), prefixes, lengths).tolist() == expected


@pytest.mark.parametrize(("kept", "coming", "after"), [
    ("abc", "", "abc"), ("a-c", "x", "axc"), ("a-c", "xy", "axcy"), ("", "xy", "xy"),
    ("-b-de", "", "ebd"), ("a--", "", "a"), ("--", "", ""),
])
def test_rows_enter_where_others_left(kept, coming, after):
    found = refill([None if row == "-" else row for row in kept],
                   [(EMPTY_ROW, row) for row in coming])
    assert "".join(row for _, row in found) == after
    assert all(origin == (EMPTY_ROW if row in coming else kept.index(row)) for origin, row in found)
