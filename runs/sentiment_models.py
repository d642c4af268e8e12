"""Models of sentiment_guidance.py: guides trained on pairs of review sentences, and two judges.

The sentences are those of Pang and Lee (2005), from ``text/rt-polarity.pos.gz`` and ``.neg.gz``.
All seeds have the same split: openings to continue, sentences to rank, training rows of the judges,
and the rest, from which each seed draws the pairs of its guides.
"""

import gzip
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from guidance_students import distil_all
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rewardsteer.data.config import DataConfig, SourceConfig
from rewardsteer.data.template import Template
from rewardsteer.distillation.config import CandidateConfig, SamplingConfig
from rewardsteer.models.checkpoint import CARD
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.outputs import write_text
from rewardsteer.training.config import LoraSettings, PhaseConfig, TermConfig, TrainConfig
from rewardsteer.training.run import train
from rewardsteer.training.shared_config import LogConfig, OptimiserConfig

OPENING = "Movie review:"
TEMPLATE = Template(kind="text", append_eos=False)
TEACHER = "pargs"
METHODS = {"pargs": "pargs", "args": "args"}
TINY_GUIDES = (TEACHER, "zeros policy_mean", "distilled rank 16")
# The judge uses states of this layer of the whole model; guides use other layers and other rows.
JUDGE_LAYER = 24


@dataclass(frozen=True)
class Sizes:
    """How much is trained.

    Attributes:
        pairs: training pairs of a guide.
        samples: openings from which students are distilled.
        judged: training sentences of the judges, per polarity.
        ranked: sentences on which reward models are tested, per polarity.
        openings: openings to continue, per polarity.
        tokens: longest answer.
    """

    pairs: int = 600
    samples: int = 240
    judged: int = 600
    ranked: int = 60
    openings: int = 62
    tokens: int = 20


@dataclass
class Sentences:
    """Review sentences by polarity (1: positive)."""

    openings: list[str]
    ranked: list[tuple[str, int]]
    judged: list[tuple[str, int]]
    pairs: list[tuple[str, str]]
    sampled: list[str]


def tidy(line: str) -> str:
    """A sentence in ordinary spelling; the files have lower case, and spaces around signs."""
    text = re.sub(r" ([,.;:?!)'])", r"\1", line.strip())
    text = text.replace("( ", "(").replace(" n't", "n't")
    return text[:1].upper() + text[1:]


def opening_of(text: str, words: int = 3) -> str:
    """The prompt's beginning and the first words of a sentence."""
    return f"{OPENING} {' '.join(text.split()[:words])}"


def deal(data: Path, seed: int, sizes: Sizes) -> Sentences:
    """Split the sentences by use; ``seed`` draws those of guides, and the rest of the split is
    fixed."""
    lines = []
    for name in ("neg", "pos"):
        with gzip.open(data / "text" / f"rt-polarity.{name}.gz", "rt", encoding="latin1") as file:
            lines.append([tidy(line) for line in file])
        random.Random(name).shuffle(lines[-1])
    kinds, begin = [], 0
    for count in (sizes.openings, sizes.ranked, sizes.judged):
        taken = slice(begin, begin + count)
        kinds.append([(one, label) for label in (0, 1) for one in lines[label][taken]])
        begin += count
    rest = [own[begin:] for own in lines]
    for own in rest:
        random.Random(f"{seed}/guide").shuffle(own)
    bad, good = (own[: sizes.pairs] for own in rest)
    sampled = [own[sizes.pairs : sizes.pairs + sizes.samples // 2] for own in rest]
    openings = [opening_of(one) for one, _ in kinds[0]]
    half = sizes.openings
    return Sentences(
        [openings[place + end] for place in range(half) for end in (0, half)], kinds[1], kinds[2],
        list(zip(good, bad, strict=True)), [opening_of(one) for own in sampled for one in own],
    )


class Judge:
    """P(positive) by a linear probe of the policy's states, and by words alone.

    ``kept`` is a file of the states of ``rows``; it is written if missing.
    """

    def __init__(
        self, policy: Any, tokenizer: Any, rows: Sequence[tuple[str, int]], kept: Path
    ) -> None:
        self.policy, self.tokenizer = policy, tokenizer
        texts, labels = [one for one, _ in rows], [label for _, label in rows]
        self.reading = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=1000))
        if not kept.exists():
            np.save(kept, self.states(texts))
        self.reading.fit(np.load(kept, allow_pickle=False), labels)
        self.words = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
            LogisticRegression(C=3, max_iter=1000),
        ).fit(texts, labels)

    @torch.no_grad()
    def states(self, texts: Sequence[str], together: int = 50) -> np.ndarray:
        """Hidden states ``[N, D]`` of the texts' last tokens."""
        layer = min(JUDGE_LAYER, self.policy.config.num_hidden_layers)
        found = np.zeros((len(texts), self.policy.config.hidden_size), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for begin in range(0, len(order), together):
            places = order[begin : begin + together]
            coded = self.tokenizer(
                [f"{OPENING} {texts[place]}" for place in places], return_tensors="pt",
                padding=True, padding_side="right",
            )
            hidden = self.policy.base_model(**coded, output_hidden_states=True).hidden_states
            last = coded["attention_mask"].sum(1) - 1
            found[places] = hidden[layer][torch.arange(len(places)), last].float().numpy()
        return found

    def read(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """P(positive) ``[N]`` by the probe and by the words."""
        return (
            self.reading.predict_proba(self.states(texts))[:, 1],
            self.words.predict_proba(list(texts))[:, 1],
        )


def _phases(name: str, pairs: int, constraint: dict[str, Any] | None = None) -> list[PhaseConfig]:
    """Phases of one pass over the pairs; a constraint has a phase between two halves of it."""
    if constraint is None:
        return [PhaseConfig(objective=[TermConfig(name=name)])]
    return [
        PhaseConfig(objective=[TermConfig(name=name)], rows=pairs // 2),
        PhaseConfig(
            objective=[TermConfig(name="max_constraint", options=constraint)], rows=pairs // 6
        ),
    ]


def plans(pairs: int) -> dict[str, tuple[HeadConfig, list[PhaseConfig], bool]]:
    """Guide → head, phases, and whether its backbone is the whole model (else its first layers)."""
    scalar = HeadConfig(kind="scalar")
    zeros, published = (HeadConfig(kind="vocabulary", init=init) for init in ("zeros", "lm_head"))

    def farma(**constraint: Any) -> list[PhaseConfig]:
        return _phases("bradley_terry", pairs, constraint)

    return {
        "args": (scalar, _phases("bradley_terry", pairs), False),
        TEACHER: (scalar, _phases("partial", pairs), False),
        "farma": (published, farma(), True),
        "zeros pairs alone": (zeros, _phases("bradley_terry", pairs), False),
        "zeros max": (zeros, farma(), False),
        "zeros policy_soft": (zeros, farma(backup="policy_soft", temperature=0.5), False),
        "zeros policy_mean": (zeros, farma(backup="policy_mean"), False),
        "zeros prefix pairs": (zeros, _phases("partial", pairs), False),
    }


def train_all(
    sentences: Sentences, seed: int, policy: Path, lower: Path, out: Path, *, tiny: bool,
) -> dict[str, Path]:
    """Train the missing guides; returns guide → folder.

    Args:
        sentences: the split of the seed.
        seed: of draws and new weights.
        policy: the whole model's folder.
        lower: the folder of its first layers, the backbone of most guides.
        out: the folder that the guides' folders are in.
        tiny: train only some guides, for one update each.
    """
    bad, good = ([one for one, own in sentences.ranked if own == label] for label in (0, 1))
    for split, pairs in (("train", sentences.pairs), ("test", zip(good, bad, strict=True))):
        write_text(out / "pairs" / f"{split}.jsonl", "".join(
            json.dumps({"prompt": OPENING, "chosen": f" {one}", "rejected": f" {other}"}) + "\n"
            for one, other in pairs
        ))
    data = DataConfig(  # All pairs have the same prompt.
        sources=[SourceConfig(name="pairs", path=str(out / "pairs"))], template=TEMPLATE,
        max_length=128, prefix_start=2, prefix_count=6, drop_overlap=False, num_proc=1,
    )
    folders: dict[str, Path] = {}
    for name, (head, phases, whole) in plans(len(sentences.pairs)).items():
        if tiny and name not in TINY_GUIDES:
            continue
        folder = out / name.replace(" ", "-")
        folders[name] = folder / "model"
        if (folder / "model" / CARD).exists():
            continue
        print("training", name, flush=True)
        train(TrainConfig(
            base_model=str(policy if whole else lower), head=head, data=data,
            phases=phases, rounds=len(phases), last_phase=phases[0].name,
            policy=str(policy) if "policy" in name else None, seed=seed,
            optimiser=_optimiser(5e-4, 8, tiny),
            # With adapters on upper layers alone, the backward pass ends above the lower ones.
            lora=LoraSettings(rank=16, target_modules=_upper(whole, tiny)),
            log=LogConfig(logging_steps=20, progress=False, print_logs=False, save_steps=0),
        ), folder, resume=folder.exists())
    return folders


def _upper(whole: bool, tiny: bool) -> str:
    layers = "[01]" if tiny else "2[1-9]" if whole else "1[4-9]"
    return rf".*layers\.{layers}\..*_proj"


def _optimiser(
    learning_rate: float, batch_size: int, tiny: bool, epochs: int = 1
) -> OptimiserConfig:
    return OptimiserConfig(
        learning_rate=learning_rate, per_device_train_batch_size=batch_size,
        num_train_epochs=epochs, lr_scheduler_type="cosine", warmup_steps=0.05,
        max_steps=1 if tiny else -1, gradient_checkpointing=False, precision="fp32",
    )


# Student on the policy's frozen states → its head and learning rate. All heads start from zeros; a
# full head has a weight for each channel and token.
STUDENTS: dict[str, tuple[Mapping[str, Any], float]] = {
    "distilled rank 4": ({"layers": "low_rank", "rank": 4}, 2e-3),
    "distilled rank 16": ({"layers": "low_rank", "rank": 16}, 2e-3),
    "distilled rank 64": ({"layers": "low_rank", "rank": 64}, 2e-3),
    "distilled full": ({"init": "zeros"}, 5e-4),
}


def distil_students(
    sentences: Sentences, seed: int, policy: Path, teacher: Path, out: Path, sizes: Sizes,
    candidates: int, *, tiny: bool,
) -> tuple[dict[str, Path], Path]:
    """Distil the missing students; returns student → folder, and the folder of their records."""
    students = {
        name: {
            "head": {"kind": "vocabulary", **head},
            "optimiser": _optimiser(rate, 16, tiny, epochs=3),
        }
        for name, (head, rate) in STUDENTS.items() if not tiny or name in TINY_GUIDES
    }
    return distil_all(
        sentences.sampled, students, out,
        policy=str(policy), teacher=str(teacher), freeze_backbone=True, loss={"weight": 3.0},
        template=TEMPLATE, seed=seed,
        sampling=SamplingConfig(max_new_tokens=sizes.tokens, batch_size=64),
        candidates=CandidateConfig(top_k=candidates, unseen=2, positions=10),
        log=LogConfig(logging_steps=20, progress=False, print_logs=False),
    )
