"""verl's forms of a reward function, called as its published reward managers call them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rewardsteer.errors import DataError, NonFiniteError
from rewardsteer.integrations.batching import BatchedScoring
from rewardsteer.integrations.verl import RewardFunction
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Message

PROMPTS = ["1+1", "2+2", "3+3"]
RESPONSES = ["= 2", "is four, of course", ""]


@pytest.fixture(scope="module")
def expected(reward_folder):
    return load_scorer(reward_folder, device="cpu").score(PROMPTS, RESPONSES)


def test_one_response_at_a_time(reward_folder, expected):
    """As NaiveRewardManager and the asynchronous reward loop do."""
    compute_score = RewardFunction.load(reward_folder, device="cpu").compute_score
    for prompt, response, right in zip(PROMPTS, RESPONSES, expected, strict=True):
        found = compute_score(
            data_source="openai/gsm8k", solution_str=response, ground_truth="2",
            extra_info={"split": "train", "index": 0, "question": prompt, "answer": "2"},
        )
        assert isinstance(found, float)
        assert found == pytest.approx(right, abs=1e-5)
        looped = compute_score(
            data_source="x", solution_str=response + "<eos>", ground_truth=None,
            extra_info={"prompt": prompt}, reward_model=None, reward_model_tokenizer=None,
        )
        assert looped == pytest.approx(right, abs=1e-5)


def test_batches(reward_folder, expected):
    """As BatchRewardManager does, with arrays of objects."""
    reward = RewardFunction.load(reward_folder, device="cpu", prompt_key="q", batch_size=2)
    found = reward.compute_scores(
        data_sources=np.array(["x"] * 3, dtype=object), solution_strs=RESPONSES,
        ground_truths=["2", "4", None],
        extra_infos=np.array([{"q": one} for one in PROMPTS], dtype=object),
    )
    assert all(isinstance(one, float) for one in found)
    assert found == pytest.approx(list(expected), abs=1e-5)


def test_conversations_as_parquet_gives_them(reward_folder):
    reward = RewardFunction.load(reward_folder, device="cpu")
    talk = np.array([{"role": "user", "content": "1+1"}], dtype=object)
    found = reward.compute_score("x", "2", None, {"prompt": talk})
    right = reward.scorer.score([[Message(role="user", content="1+1")]], ["2"])
    assert found == pytest.approx(right[0], abs=1e-5)


def test_without_a_prompt(reward_folder):
    reward = RewardFunction.load(reward_folder, device="cpu")
    with pytest.raises(DataError, match=r"as prompt or question or problem; got the fields index"):
        reward.compute_score("x", "2", None, {"index": 1})
    with pytest.raises(DataError, match="got the fields none"):
        reward.compute_score("x", "2", None)


class Slow(TextScorer):
    """Counts how many rows are scored together, and is used by one thread at a time."""

    def __init__(self):
        self.batches, self.busy = [], 0

    def score(self, prompts, completions, *, batch_size=16, closed=True):
        self.busy += 1
        assert self.busy == 1
        self.batches.append(len(prompts))
        time.sleep(0.02)
        self.busy -= 1
        if "nan" in completions:
            raise NonFiniteError("The reward of row 1 is nan.")
        return np.array([float(len(one)) for one in completions])


def test_questions_of_many_threads_are_scored_together():
    scorer = Slow()
    batched = BatchedScoring(scorer, batch_size=8)
    texts = ["x" * n for n in range(40)]
    start = threading.Barrier(20)

    def ask(text):
        if len(text) < 20:
            start.wait(10)
        return batched.score("p", text)

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, texts)) == [float(n) for n in range(40)]
    assert sum(scorer.batches) == 40
    assert len(scorer.batches) <= 12
    assert max(scorer.batches) == 8


def test_a_row_that_cannot_be_scored_fails_alone():
    batched = BatchedScoring(Slow(), batch_size=8)
    start = threading.Barrier(6)

    def ask(text):
        start.wait(10)
        try:
            return batched.score("p", text)
        except NonFiniteError:
            return None

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(ask, ["a", "bb", "nan", "ccc", "dddd", "e"]))
    assert found == [1, 2, None, 3, 4, 1]
