"""Every operator that training and decoding reach on an accelerator has a kernel there."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.models.packing.choose import packed_attention
from rewardsteer.models.packing.plan import PackingCosts
from rewardsteer.models.prefix_reader import PrefixReader
from rewardsteer.objectives.combine import build_objective
from rewardsteer.objectives.positions import PerRowGenerator, Spans, draw, draw_future
from rewardsteer.training.config import TermConfig
from tests.models.test_packing import build
from tests.objectives.test_objectives import rows
from tests.training.operators import Recorder, without_kernel

TERMS = {
    "scalar": ["bradley_terry", "partial", "goal_contrastive"],
    "vocabulary": ["bradley_terry", "max_constraint", "autoregressive"],
}
MASK, SEGMENTS = PackingCosts(0.0), PackingCosts(1.0, 0.0)


def record_step(head, name, costs):
    """The operators of a forward and a backward pass. Which attention kernel torch takes inside
    its own attention is its own choice by device, so it takes the one that is made of others."""
    model = build("llama", head, torch.float32, "sdpa")
    objective = build_objective([TermConfig(name=name)])
    collate = PairCollator(
        0, paired=objective.rows == "pairs", prefixes=objective.prefixes, packing=costs
    )
    batch = to_batch(collate(rows(seed=3, count=4)))
    assert (batch.packing is None) == (costs is None)
    recorder = Recorder()
    with packed_attention(model, costs), sdpa_kernel(SDPBackend.MATH), recorder:
        loss = objective(model(batch, objective.needs), batch).loss
        loss.backward()
    return recorder


@pytest.mark.parametrize("device", ["CUDA", "MPS"])
@pytest.mark.parametrize("costs", [None, MASK], ids=["padded", "masked"])
@pytest.mark.parametrize(
    ("head", "name"), [(head, name) for head, names in TERMS.items() for name in names]
)
def test_training(head, name, costs, device):
    found = record_step(head, name, costs)
    assert {"mm", "bmm"} & found.seen
    assert without_kernel(found.seen, device) == set()


def test_segments_would_be_noticed():
    found = record_step("scalar", "bradley_terry", SEGMENTS).seen
    assert without_kernel(found, "CPU") == set()
    assert without_kernel(found, "CUDA") == {
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
    }


@pytest.mark.parametrize("device", ["CUDA", "MPS"])
@pytest.mark.parametrize("head", ["scalar", "vocabulary"])
def test_decoding(head, device):
    model = build("llama", head, torch.float32, "sdpa").eval()
    reader, ids = PrefixReader(model.backbone), torch.tensor([[5, 6, 7], [0, 8, 9]])
    mask = torch.tensor([[1, 1, 1], [0, 1, 1]])
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Recorder() as recorder:
        states = reader.step(ids, mask)
        if head == "vocabulary":
            model.head.next_token(states)
        else:
            model.head.values(reader.score_candidates(ids, mask, torch.tensor([[3, 4], [5, 6]])))
    assert recorder.seen
    assert without_kernel(recorder.seen, device) == set()


def test_positions_need_no_float64():
    begin, end = torch.tensor([1, 2, 3], device="meta"), torch.tensor([9, 9, 9], device="meta")
    with Recorder() as recorder:
        spans = Spans(begin, end).window(0.1, 0.5)
        draw(spans.begin, spans.end, 4, PerRowGenerator([1, 2, 3]))
        draw_future(spans, Spans(begin, end), 4, PerRowGenerator([1, 2, 3]), shared_split=False)
    kinds = {dtype for device, dtype in recorder.dtypes if device == "meta"}
    assert torch.int64 in kinds
    assert torch.float64 not in kinds
