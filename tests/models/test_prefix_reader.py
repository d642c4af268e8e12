"""The cached reader against the same model read whole, one row at a time."""

import pytest
import torch

from rewardsteer.models.prefix_reader import PrefixReader, takes_tree_masks
from tests.fakes import tiny_causal_lm

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
            reader.sync(*left_pad(rows)), expected(model, rows), rtol=1e-4, atol=1e-4
        )
        for index, row in enumerate(rows):
            row.append(20 + 3 * step + index)
    assert reader.forwards == [4, 4, 4]
    assert reader.tokens == [len(row) + 3 for row in ROWS]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("tree", [True, False])
def test_probe_equals_separate_reads(kind, attention, tree):
    model = tiny_causal_lm(kind)
    model.set_attn_implementation(attention)
    assert takes_tree_masks(model)
    reader = PrefixReader(model, tree=tree)
    rows = [list(row) for row in ROWS]
    for step in range(3):
        candidates = torch.tensor([[30, 31, 32, 33], [40, 41, 42, 43], [50, 51, 52, 53]]) + step
        answers = reader.probe(*left_pad(rows), candidates)
        for index, row in enumerate(rows):
            several = [[*row, int(token)] for token in candidates[index]]
            torch.testing.assert_close(
                answers[index], expected(model, several), rtol=1e-4, atol=1e-4
            )
            row.append(int(candidates[index, (step + index) % 4]))
    # The state at the end is as if nothing but the prefix had been read.
    torch.testing.assert_close(
        reader.sync(*left_pad(rows)), expected(model, rows), rtol=1e-4, atol=1e-4
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
    reader.probe(*left_pad(rows), torch.tensor([[30, 31]] * 3))
    rows[0].append(30)
    rows[1].append(77)
    rows[2].append(31)
    torch.testing.assert_close(
        reader.sync(*left_pad(rows)), expected(model, rows), rtol=1e-4, atol=1e-4
    )


def test_changed_prefixes_are_read_again():
    model = tiny_causal_lm()
    reader = PrefixReader(model)
    reader.sync(*left_pad(ROWS))
    for changed in (
        [[5, 6, 99 - 30, 8, 9, 10], [11, 12], [13, 14, 15, 16]],  # an inner token
        [ROWS[2], ROWS[0], ROWS[1]],  # reordered rows
        [row[:-1] for row in ROWS],  # shorter
        ROWS[:2],  # fewer rows
        [[5]] * 4,  # more rows, one token
    ):
        torch.testing.assert_close(
            reader.sync(*left_pad(changed)), expected(model, changed), rtol=1e-4, atol=1e-4
        )


def test_same_prefix_costs_nothing():
    reader = PrefixReader(tiny_causal_lm())
    first = reader.sync(*left_pad(ROWS))
    assert torch.equal(reader.sync(*left_pad(ROWS)), first)
    assert reader.forwards == [1, 1, 1]


@pytest.mark.parametrize("probed", [False, True])
def test_selecting_rows(probed):
    model = tiny_causal_lm()
    reader = PrefixReader(model)
    rows = [list(row) for row in ROWS]
    reader.sync(*left_pad(rows))
    if probed:
        reader.probe(*left_pad(rows), torch.tensor([[30, 31]] * 3))
    reader.select([2, 0, 0])
    picked = [[*rows[2], 31], [*rows[0], 30], [*rows[0], 31]]
    width = max(map(len, ROWS)) + 1
    ids = torch.tensor([[2] * (width - len(row)) + row for row in picked])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in picked])
    torch.testing.assert_close(
        reader.sync(ids, mask), expected(model, picked), rtol=1e-4, atol=1e-4
    )
    assert reader.tokens[1] == len(ROWS[0]) + (2 if probed else 1)


def test_adapters_are_read_with_positions():
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(
        r=2, target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True
    )
    model = get_peft_model(tiny_causal_lm("gpt2"), config).eval()
    torch.testing.assert_close(
        PrefixReader(model).sync(*left_pad(ROWS)), expected(model, ROWS), rtol=1e-4, atol=1e-4
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
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    reader = PrefixReader(model)
    rows = [[5, 6], [7, 8, 9]]
    for step in range(8):  # the window is passed on the way
        candidates = torch.tensor([[30, 31], [40, 41]]) + step
        answers = reader.probe(*left_pad(rows), candidates)
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
    answers = reader.probe(*left_pad([ROWS[0]]), candidates)
    assert not takes_tree_masks(model)
    several = [[*ROWS[0], 30], [*ROWS[0], 31]]
    torch.testing.assert_close(answers[0], expected(model, several), rtol=1e-4, atol=1e-4)
