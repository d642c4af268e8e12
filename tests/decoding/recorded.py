"""Runs of every method whose results were written down; ``python -m tests.decoding.recorded``
writes them anew."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from tests.decoding.test_generate import make_policy
from tests.fakes import character_tokenizer, save_tiny

PLACE = Path(__file__).with_name("recorded.json")
PROMPTS = ["What is 7+8?", "a", "Sum of three, four and 5: ", "zz top", "Who? 12 9", "1 2"]
KINDS = ("llama", "gpt2")
_SHARED = {"max_new_tokens": 14, "seed": 4, "batch_size": 7}
_GUIDED = {"weight": 1.5, "top_k": 6}
RUNS: dict[str, dict[str, Any]] = {
    **{
        f"{name} {mode}": {"method": name, "mode": mode, **_GUIDED}
        for name in ("none", "farma", "genarm", "args", "pargs", "cd")
        for mode in ("greedy", "sample")
    },
    "farma scheduled": {"method": "farma", "weight_schedule": "cosine", "weight_end": 0.0,
                        **_GUIDED},
    "args target_kl": {"method": "args", "target_kl": 0.3, "top_k": 6},
    "best_of_n": {"method": "best_of_n", "n": 5, "top_k": 20},
    "cards": {"method": "cards", "reward_target": 1.2, "acceptance": 0.4, "top_k": 0,
              "entropy_threshold": 2.7, "segment_min": 2, "segment_tokens": 5,
              "max_rejections": 3},
    "cards share 1": {"method": "cards", "reward_target": 0.9, "acceptance": 0.1, "top_k": 0,
                      "entropy_threshold": 2.4, "segment_min": 1, "segment_tokens": 4,
                      "max_rejections": 4, "reward_share": 1.0},
    "speculative_rejection": {"method": "speculative_rejection", "n": 6, "decision_tokens": 2,
                              "reject_share": 0.4, "top_k": 20},
    "goal beam": {"method": "beam", "beam": 3, "branches": 2, "step_tokens": 4,
                  "max_steps": 5, "step_separator": " ", "weight": 2.0, "top_k": 12},
    "goal_filter below": {"method": "goal_filter", "n": 6, "drop_threshold": -0.12,
                          "drop_start": 2, "top_k": 0},
    "goal_filter esc": {"method": "goal_filter", "n": 6, "drop_threshold": -0.2, "drop_start": 2,
                        "top_k": 0, "vote_stop": "esc", "vote_window": 2},
    "goal_filter adaptive": {"method": "goal_filter", "n": 6, "drop_rule": "patience",
                             "drop_patience": 2, "drop_threshold": 0.0, "drop_start": 1,
                             "top_k": 0, "vote_stop": "adaptive", "vote_confidence": 0.7},
    "goal_filter all": {"method": "goal_filter", "n": 4, "drop_threshold": 0.9, "drop_start": 1,
                        "top_k": 0},
}
_VOCABULARY = ("farma", "genarm")
_OBJECTIVES = {"genarm": "autoregressive", "pargs": "partial", "cd": "partial"}


def make_parts(root: Path, kind: str) -> dict[str, Any]:
    """Policy, tokenizer and scorers by head."""
    folder = save_tiny(root / kind, kind, seed=7)
    policy, tokenizer = make_policy(kind, eos_bias=1.5)
    parts: dict[str, Any] = {"policy": policy, "tokenizer": tokenizer}
    for head in ("scalar", "vocabulary"):
        torch.manual_seed(3)
        parts[head] = RewardModel.from_base(folder, HeadConfig(kind=head)).eval()
    return parts


def make_goal(width: int) -> GoalState:
    """A goal state that some responses are near."""
    vectors = torch.randn(1, width, generator=torch.Generator().manual_seed(1))
    return GoalState("good", vectors, Provenance(kind="mean", model_fingerprint=""))


def run(parts: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Results of one run as they are written down; rewards rounded."""
    config = DecodingConfig(**_SHARED, **RUNS[name])
    scorer = goal = None
    if config.method != "none":
        head = "vocabulary" if config.method in _VOCABULARY else "scalar"
        scorer = Scorer(
            parts[head], character_tokenizer(), Template(append_eos=False),
            objective=_OBJECTIVES.get(config.method, ""),
        )
    if name.startswith("goal"):
        goal = make_goal(parts["scalar"].config.hidden_size)
    requests = [Request(id=f"r{i}", prompt=prompt) for i, prompt in enumerate(PROMPTS)]
    method = build_method(config, scorer, goal)
    return [
        {
            "id": one.id, "token_ids": one.token_ids, "finish_reason": one.finish_reason,
            "reward": None if one.reward is None else round(one.reward, 5),
            "cost": one.cost.model_dump(exclude={"seconds", "draft_tokens", "gate_tokens"}),
        }
        for one in generate(parts["policy"], parts["tokenizer"], requests, method, config)
    ]


def main() -> None:
    """Write the results of all runs."""
    with tempfile.TemporaryDirectory() as place:
        found = {}
        for kind in KINDS:
            parts = make_parts(Path(place), kind)
            found[kind] = {name: run(parts, name) for name in RUNS}
    PLACE.write_text(json.dumps(found, separators=(",", ":")).replace('"},{"', '"},\n{"') + "\n")


if __name__ == "__main__":
    main()
