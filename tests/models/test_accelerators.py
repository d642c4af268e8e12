"""What a GPU, a Mac or two GPUs would refuse or wait for, on a machine that has none of them."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn

from rewardsteer.decoding.engines.transformers.likelihoods import _of_tokens
from rewardsteer.decoding.mapped_scorer import MappedScorer
from rewardsteer.doctor.checks.plain import _logit
from rewardsteer.models import hidden_states, reading
from rewardsteer.models.cached_forward import CachedForward
from rewardsteer.models.capabilities import supports_left_padding
from rewardsteer.models.causal import _chosen
from rewardsteer.models.heads.attributes import AttributesHead
from rewardsteer.models.heads.scalar import ScalarHead
from rewardsteer.models.heads.vocabulary import VocabularyHead
from rewardsteer.models.kinds.parts import replace_outputs
from rewardsteer.models.pair_scorer import PairScorer
from rewardsteer.models.placement import put_beside
from rewardsteer.models.preallocated_cache import PreallocatedCache
from rewardsteer.objectives.base import pairwise_logistic_loss
from rewardsteer.objectives.contrastive_published import _number
from rewardsteer.tensors import PairBatch
from rewardsteer.training.accumulator import MetricAccumulator
from tests.accelerators import MPS, CountMoves, NoCopies, OnMps, mps
from tests.models.test_packing import build

META, CPU = torch.device("meta"), torch.device("cpu")


class TestMac:
    def test_likelihoods(self):
        torch.manual_seed(0)
        logits, ids = torch.randn(4, 9), torch.tensor([3, 5, 7, 1])
        expected = _chosen(logits, ids, 1)
        with mps():
            found = _chosen(logits.as_subclass(OnMps), ids.as_subclass(OnMps), 1)
            total = _of_tokens(logits[:3].as_subclass(OnMps), ids[1:].tolist())
        assert found.tolist() == expected.tolist()
        assert total == pytest.approx(expected.sum())

    def test_models_of_pairs(self):
        class Longer(PairScorer):
            def encode_pair(self, turns, first, second):
                return [1] * len(first) + [2] * len(second)

            def first_wins(self, ids, mask):
                return (ids == 1).float().mean(1)

        with mps():
            found = Longer(SimpleNamespace(device=MPS), None).preferences(
                ["q"] * 2, ["aaa", "a"], ["b", "b"]
            )
        assert found.tolist() == [0.75, 0.5]

    def test_transformers_own_logits(self):
        model = SimpleNamespace(device=MPS)
        rows = [[1, 2], [3]]

        def forward(input_ids, attention_mask):
            return SimpleNamespace(logits=input_ids.float())

        with mps():
            found = _logit(_Called(forward, model), rows)
        assert found == [1.0, 3.0]

    def test_copies_are_waited_for(self):
        """Their source, on the host, is free before a queue comes to them."""
        for device, queued in ((MPS, False), (torch.device("cuda"), True), (CPU, False)):
            reader = CachedForward.__new__(CachedForward)
            reader.module = SimpleNamespace(device=device)
            asked = []
            tensor = SimpleNamespace(to=lambda *where, **how: asked.append((where, how)))  # noqa: B023
            reader._there(tensor)
            assert asked == [((device,), {"non_blocking": queued})]


class _Called:
    """A model that is a function."""

    def __init__(self, forward, model):
        self._forward, self.device = forward, model.device

    def __call__(self, **inputs):
        return self._forward(**inputs)


class TestAutocast:
    def test_weighted_attributes_are_not_rounded(self):
        torch.manual_seed(0)
        head = AttributesHead(nn.Linear(16, 3, bias=False), torch.tensor([0.3, 0.7, -0.33]))
        hidden = torch.randn(50, 16)
        expected = head.values(hidden)
        with torch.autocast("cpu", torch.bfloat16):
            found = head.values(hidden)
        assert torch.equal(found, expected)

    def test_rounding_is_no_lack_of_a_capability(self):
        """Padded and unpadded products round differently in half precision."""
        backbone = build("llama", "scalar", torch.float32).backbone

        def off(_, __, options, output):
            if options.get("attention_mask") is not None:
                output.last_hidden_state = output.last_hidden_state * 1.004
            return output

        backbone.register_forward_hook(off, with_kwargs=True)
        assert not supports_left_padding(backbone)
        with torch.autocast("cpu", torch.bfloat16):
            assert supports_left_padding(backbone)
        assert not supports_left_padding(backbone)


@pytest.mark.parametrize("padded", [True, False])
def test_every_process_tests_what_its_model_can_do(monkeypatch, padded):
    """The test runs layers, which several processes gather together: one without padding in its
    first rows must run it too."""
    asked, real = [], hidden_states.supports_left_padding
    monkeypatch.setattr(
        hidden_states, "supports_left_padding", lambda one: asked.append(one) or real(one)
    )
    model = build("llama", "scalar", torch.float32)
    mask = torch.ones(2, 4).long()
    mask[0, 0] = 0 if padded else 1
    model.hidden_states(torch.arange(3, 11).view(2, 4), mask)
    assert asked == [model.backbone]


class TestTwoGpus:
    """Under a device map, states come from the last device and layers lie on several."""

    def test_rows_follow_their_states(self):
        read = reading._read(
            None, [0, 1], torch.ones(2, 4).long(),
            lambda model, ids: torch.empty(2, 4, 8, device=META), [2, 3], [[5, 6], [7]],
        )
        assert {one.device for one in (read.ids, read.begins, read.last)} == {META}
        assert read.last_states.device == read.prompt_states.device == META

    def test_rows_of_cached_prompts_are_chosen_on_each_layers_device(self, monkeypatch):
        """From the host, where nothing stands between it and any device."""
        seen, model = [], build("llama", "scalar", torch.float32)
        model.__class__ = type("Elsewhere", (type(model),), {"device": META})
        held = [tuple(torch.zeros(1, 2, 2, 8, device=one) for _ in "kv") for one in (META, CPU)]
        monkeypatch.setattr(
            reading, "_read_beginnings", lambda *_: (held, torch.ones(1, 2, dtype=torch.bool))
        )

        def read_on(model, ids, cached, mask, places):
            seen.extend(keys[places.to(keys.device)].device for keys, _ in cached)
            return torch.zeros(*ids.shape, 8, device=ids.device)

        monkeypatch.setattr(reading, "_read_on", read_on)
        prompt = [3, 4, 5]
        list(reading._shared(
            model, [prompt, prompt], [[6], [7]], [[0, 1]], {"rows": 4, "tokens": None}
        ))
        assert seen == [META, CPU]

    @pytest.mark.parametrize("head", [
        ScalarHead(lambda hidden: torch.zeros(*hidden.shape[:-1], 1)),
        AttributesHead(lambda hidden: torch.zeros(*hidden.shape[:-1], 2), torch.ones(2)),
        VocabularyHead(lambda hidden, read, tokens: torch.zeros(tokens.shape)),
    ], ids=["scalar", "attributes", "vocabulary"])
    def test_rewards_lie_where_their_states_do(self, head):
        hidden, ids = torch.empty(2, 3, 4, device=META), torch.zeros(2, 3, device=META).long()
        assert head.token_rewards(hidden, ids).device == META
        last = torch.zeros(2, device=META).long()
        assert head.sequence_rewards(hidden, ids, last).device == META

    def test_a_module_beside_a_layer_moves_its_inputs(self):
        layer, own = nn.Linear(4, 2, device=META), nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        add_hook_to_module(layer, AlignDevicesHook(execution_device=META))
        assert put_beside(layer, own)(torch.zeros(3, 4)).device == META


    def test_a_smaller_output_layer_moves_its_inputs_too(self):
        layer = nn.Linear(4, 9, bias=False, device=META)
        add_hook_to_module(layer, AlignDevicesHook(execution_device=META))
        put = []
        replace_outputs(SimpleNamespace(
            get_output_embeddings=lambda: layer, set_output_embeddings=put.append
        ), lambda rows: rows[[3, 5]])
        assert put[0](torch.zeros(3, 4)).device == META


class TestWaiting:
    """A value that comes from the host, or goes there, makes a GPU wait for it."""

    def test_metrics_are_summed_on_the_device(self):
        batch = PairBatch(*(torch.empty(4, 6, device=META) for _ in range(4)), torch.zeros(2))
        interval = MetricAccumulator(META)
        values = {name: torch.empty((), device=META) for name in ("accuracy", "gap")}
        with NoCopies():
            for _ in range(2):
                interval.add(batch, values, {"loss": torch.empty((), device=META)}, 0.5)
        assert {one.device for one in interval._sums.values()} == {META}

    def test_pairs_are_counted_on_the_device(self):
        chosen, rejected, margin = (torch.empty(3, device=META) for _ in range(3))
        with NoCopies():
            assert pairwise_logistic_loss(chosen, rejected, margin).loss.device == META
            assert _number(5, chosen).device == META

    def test_rows_are_told_once_to_all_layers_of_a_device(self):
        cache = PreallocatedCache()
        for layer in range(4):
            states = torch.zeros(2, 3, 5, 8, device=META)
            cache.update(states, states, layer)
        rows = torch.tensor([1, 0])
        for change, most in (
            (lambda: cache.select(rows), 3), (lambda: cache.keep_one(rows, 2), 1),
            (lambda: cache.part(rows, torch.zeros(2, 2).long()), 2),
            (lambda: cache.place(rows, cache.part(rows, torch.zeros(2, 2).long())), 3),
        ):
            with CountMoves() as count:
                change()
            assert count.moves <= most

    def test_a_table_of_tokens_is_moved_once(self):
        scorer = SimpleNamespace(
            vocabulary_size=4, known=SimpleNamespace(stand_in=0),
            next_token=lambda ids, mask, cache: torch.zeros(1, 4, device=META),
        )
        mapped, ids = MappedScorer(scorer, [2, -1, 0]), torch.tensor([[1, 2]])
        for moves in (2, 0):
            with CountMoves() as count:
                assert mapped.next_token(ids, torch.ones_like(ids)).device == META
            assert count.moves == moves
