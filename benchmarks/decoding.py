"""Guided decoding: every method against plain `generate`, the forward passes alone (the floor), and
the published style (batch 1, all tokens computed again for each new one)."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from benchmarks.backbones import Backbone
from benchmarks.harness import Row, device, in_turn, spread, timed
from benchmarks.words import word_tokenizer
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.preallocated_cache import PreallocatedCache
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer

# Method → the head of its reward model, and the objective that trained it.
HEADS = {
    "none": None, "farma": ("vocabulary", "max_constraint"),
    "genarm": ("vocabulary", "autoregressive"), "args": ("scalar", "bradley_terry"),
    "pargs": ("scalar", "partial"), "cd": ("scalar", "partial"),
    "best_of_n": ("scalar", "bradley_terry"), "speculative_rejection": ("scalar", "bradley_terry"),
    "cards": ("scalar", "bradley_terry"), "goal_filter": ("scalar", "bradley_terry"),
    "beam": ("scalar", "bradley_terry"),
}
# With these settings nothing is rejected or dropped: random models would do so at random. The time
# of scoring is measured; what rejections save or cost depends on the models.
SEGMENTS: dict[str, dict[str, Any]] = {
    "cards": {"reward_target": -1e6, "segment_min": 16, "segment_tokens": 16},
    "goal_filter": {"drop_threshold": -1.0},
    "beam": {"branches": 2, "step_tokens": 16},
}
SAMPLED = ("best_of_n", "speculative_rejection", *SEGMENTS)
# These methods draw the 8 responses to a prompt together, so the batch must hold 8 rows.
TOGETHER = ("speculative_rejection", "goal_filter", "beam")
# Number of lengths at which the published style is timed; its time grows smoothly in between.
_NAIVE_LENGTHS = 3


@dataclass(frozen=True)
class Cell:
    """Prompt length, new tokens and batch size, with the methods timed there; ``args:5`` scores
    5 candidates instead of 10."""

    prompt: int
    new: int
    batch: int
    methods: tuple[str, ...] = tuple(HEADS)
    runs: int = 2

    def __str__(self) -> str:
        return f"prompt {self.prompt}, {self.new} new, batch {self.batch}"


@dataclass(frozen=True)
class Sizes:
    """What the table measures."""

    backbone: Backbone
    cells: tuple[Cell, ...]


_FEW = ("none", "farma", "args")
SIZES = Sizes(Backbone(8, 512, 32_000), (
    Cell(350, 64, 1, tuple(name for name in HEADS if name not in TOGETHER)),
    Cell(350, 64, 8, (*HEADS, "args:5", "args:20", "args:40")),
    Cell(350, 64, 32, _FEW, runs=1),
    Cell(128, 256, 1, _FEW, runs=1),
    Cell(128, 256, 8, _FEW, runs=1),
    Cell(128, 256, 32, ("none", "farma"), runs=1),
))
SETUP = (
    f"Policy and reward model: {SIZES.backbone}; float32, greedy, 10 candidates for args, "
    "pargs and cd, 8 samples per prompt for best_of_n, speculative_rejection and goal_filter. "
    "goal_filter drops no sample here, and cards rejects no segment of 16 tokens; beam keeps 4 of "
    "8 hypotheses every 16 tokens. The time includes the prompts. The ratio is the method's speed "
    "over that of the policy alone in transformers' `generate`. Floor: forward passes of both "
    "models over the same tokens, with caches and nothing else. Faster than recomputing: the time "
    "per token of a loop with batch 1 that computes all tokens again with both models at each "
    f"token (timed at {_NAIVE_LENGTHS} lengths), over the method's. The most expensive settings "
    "were measured with fewer methods."
)


@dataclass
class Bench:
    """The models, each made once."""

    backbone: Backbone
    tokenizer: Any = field(init=False)
    policy: Any = field(init=False)
    rewards: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.tokenizer = word_tokenizer(self.backbone.vocabulary)
        self.policy = self.backbone.causal_lm().eval()
        # No token ends a response, so that all methods generate as many.
        self.policy.generation_config.eos_token_id = None
        self.rewards = {
            "vocabulary": RewardModel(
                self.backbone.causal_lm().eval(), HeadConfig(kind="vocabulary")
            ),
            "scalar": RewardModel(self.backbone.classifier().eval(), HeadConfig()),
        }

    def prompts(self, cell: Cell) -> torch.Tensor:
        """Random ids ``[batch, prompt]``."""
        generator = torch.Generator().manual_seed(0)
        shape = (cell.batch, cell.prompt)
        return torch.randint(2, self.backbone.vocabulary, shape, generator=generator)

    def method(self, name: str, cell: Cell) -> None:
        """Answer the prompts by a method."""
        name, _, count = name.partition(":")
        wanted, scorer = HEADS[name], None
        if wanted is not None:
            head, objective = wanted
            scorer = Scorer(
                self.rewards[head], self.tokenizer, Template(append_eos=False), objective=objective
            )
        config = DecodingConfig(
            method=name, mode="sample" if name in SAMPLED else "greedy",
            max_new_tokens=cell.new, batch_size=cell.batch, top_k=int(count or 10), n=8,
            **SEGMENTS.get(name, {}),
        )
        requests = [
            Request(id=str(number), prompt="", prompt_ids=ids)
            for number, ids in enumerate(self.prompts(cell).tolist())
        ]
        goal = GoalState(
            "goal", torch.ones(1, self.backbone.size), Provenance(kind="mean", model_fingerprint="")
        )
        method = build_method(config, scorer, goal)
        answers = list(generate(self.policy, self.tokenizer, requests, method, config))
        if any(len(answer.token_ids) != cell.new for answer in answers):
            raise RuntimeError(f"{name} generated another number of tokens than {cell.new}")

    def plain(self, cell: Cell) -> None:
        """The policy alone in transformers' `generate`."""
        ids = self.prompts(cell).to(device())
        self.policy.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=cell.new, do_sample=False,
            pad_token_id=0,
        )

    @torch.no_grad()
    def floor(self, cell: Cell) -> None:
        """Forward passes of policy and reward model over prompts and responses, token by token."""
        ids = self.prompts(cell).to(device())
        models = self.policy, self.rewards["vocabulary"].base
        readers = [(model, PreallocatedCache()) for model in models]
        for _ in range(cell.new):
            for model, cache in readers:
                model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            ids = ids[:, -1:]

    @torch.no_grad()
    def naive(self, cell: Cell) -> float:
        """Seconds per token when both models compute one whole row again, with all its logits."""
        prompt, step = self.prompts(cell)[:1].to(device()), max(cell.new // _NAIVE_LENGTHS, 1)
        found = []
        for length in range(step // 2, cell.new, step):
            ids = torch.cat([prompt, prompt[:, :1].expand(1, length)], dim=1)
            for model in (self.policy, self.rewards["vocabulary"].base):
                model(ids, use_cache=False)  # the first call of a shape is slower
            found.append(timed(lambda ids=ids: [  # type: ignore[misc]
                model(ids, use_cache=False)
                for model in (self.policy, self.rewards["vocabulary"].base)
            ]))
        return statistics.mean(found)


def run(sizes: Sizes = SIZES) -> list[Row]:
    """A row for each method in each cell, in tokens per second."""
    bench = Bench(sizes.backbone)
    return [row for cell in sizes.cells for row in _measure(bench, cell)]


def _measure(bench: Bench, cell: Cell) -> list[Row]:
    sides: list[Callable[[Cell], None]] = [bench.plain, bench.floor]
    sides += [partial(bench.method, name) for name in cell.methods]
    bench.method("farma", Cell(cell.prompt, 2, cell.batch))  # the first pass of a size is slower
    seconds = in_turn([partial(timed, partial(side, cell)) for side in sides], cell.runs)
    naive, tokens = bench.naive(cell), cell.new * cell.batch
    plain, floor, *ours = zip(*seconds, strict=True)
    return [
        _row(f"{name}, {cell}", mine, plain, floor, naive * tokens, tokens)
        for name, mine in zip(cell.methods, ours, strict=True)
    ]


def _row(
    case: str, mine: Sequence[float], plain: Sequence[float], floor: Sequence[float], naive: float,
    tokens: int,
) -> Row:
    median = statistics.median(mine)
    row: Row = {
        "case": case, "ours": tokens / median, "other": tokens / statistics.median(plain),
        **spread([other / own for own, other in zip(mine, plain, strict=True)]),
        "unit": "tokens/s", "ms/token": 1000 * median / tokens,
        "floor, ms/token": 1000 * statistics.median(floor) / tokens,
        "time over floor": statistics.median(
            [own / least for own, least in zip(mine, floor, strict=True)]
        ),
        "faster than recomputing": naive / median,
    }
    return row
