"""Compare guides on SmolLM2 at equal KL, which steer film reviews to be positive; one seed.

    [SIZE=tiny] python runs/sentiment_guidance.py DATA OUT SEED

SmolLM2-135M-Instruct continues the first words of review sentences. Guides learn from pairs of a
positive and a negative sentence. Two judges, trained on other sentences, give the probability that
an answer is positive: one from hidden states of the policy, one from words alone. The measures are
those of arithmetic_guidance.py. All seeds share the judges' sentences and the prompts.
DATA is a folder with ``text/rt-polarity.pos.gz`` and ``.neg.gz``.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from guidance_world import Scope, World, measure
from sentiment_models import (
    METHODS,
    OPENING,
    TEACHER,
    TEMPLATE,
    Judge,
    Sizes,
    deal,
    distil_students,
    train_all,
)
from smollm2 import model_folder

from rewardsteer.decoding.policy import load_policy
from rewardsteer.decoding.requests import Request
from rewardsteer.evaluation.statistics import auroc_interval
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.kinds import load_scorer
from rewardsteer.quiet import quiet_libraries
from rewardsteer.records import Generation

TINY = os.environ.get("SIZE") == "tiny"
ALL_GATES = ("random", "entropy", "top1", "kl", "two-tier")
# Layers of most guides' backbone. A linear probe of the last token's state classifies sentences at
# layer 20 as well as at any layer above, and worse below.
LOWER = 20


def first_layers(layers: int | None) -> Path:
    """The folder of the model or its first layers, made if missing; BASE names another one."""
    if "BASE" in os.environ:
        return Path(os.environ["BASE"])
    return model_folder("float32", layers)


class SentimentWorld(World):
    """SmolLM2 and the sentence openings that it continues."""

    teacher, scout, methods = TEACHER, "distilled rank 16", METHODS
    candidates, template, batch_size = 8, TEMPLATE, 80

    def __init__(self, data: Path, out: Path, seed: int) -> None:
        self.seed = seed
        sizes = Sizes(8, 8, 10, 4, 4, 4) if TINY else Sizes()
        self.max_new_tokens = sizes.tokens
        self.scope = Scope(
            weights=(1.0,) if TINY else (0.3, 1.0, 3.0, 9.0),
            targets=(1.0,) if TINY else (1.5, 3.0), shares=(0.3,) if TINY else (0.1, 0.3),
            tuning=4 if TINY else 24, test=4 if TINY else 80, compared=1,
            gates=("random", "two-tier") if TINY else ALL_GATES,
        )
        place = first_layers(None)
        self.policy, self.tokenizer = load_policy(place, device="cpu"), load_tokenizer(place)
        self.sentences = deal(data, seed, sizes)
        self.judge = Judge(
            self.policy, self.tokenizer, self.sentences.judged, out.parent / "judge-states.npy"
        )
        folders = train_all(self.sentences, seed, place, first_layers(LOWER), out, tiny=TINY)
        students, self.records = distil_students(
            self.sentences, seed, place, folders[TEACHER], out, sizes, self.candidates, tiny=TINY
        )
        self.scorers = {
            name: load_scorer(folder, device="cpu") for name, folder in (folders | students).items()
        }

    def requests(self, stream: str, count: int) -> list[Request]:
        """Openings of sentences that nothing was trained on."""
        begin = 0 if stream == "tuning" else self.scope.tuning
        asked = self.sentences.openings[begin : begin + count]
        return [Request(id=f"{stream}/{index}", prompt=one) for index, one in enumerate(asked)]

    def judged(self, rows: Sequence[Generation]) -> tuple[Sequence[float], dict[str, float]]:
        """P(positive) of complete texts, by the policy's states and by their words."""
        texts = [f"{row.prompt}{row.completion}".removeprefix(OPENING).strip() for row in rows]
        by_states, by_words = self.judge.read(texts)
        return by_states.tolist(), {"reward": round(float(np.mean(by_words)), 4)}

    def ranking(self) -> dict[str, Any]:
        """AUROC for polarity on new review sentences, of all guides and both judges."""
        texts, labels = zip(*self.sentences.ranked, strict=True)
        prompts, answers = [OPENING] * len(texts), [f" {one}" for one in texts]
        scores = {
            name: one.score(prompts, answers, batch_size=30) for name, one in self.scorers.items()
        }
        by_states, by_words = self.judge.read(texts)
        scores |= {"judge by states": by_states, "judge by words": by_words}
        right = [bool(label) for label in labels]
        return {name: auroc_interval(right, one).figures("auroc") for name, one in scores.items()}


def main() -> None:
    data, out, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    quiet_libraries()
    measure(lambda: SentimentWorld(data, out / str(seed), seed), out, seed)


if __name__ == "__main__":
    main()
