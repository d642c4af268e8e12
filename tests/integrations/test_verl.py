"""verl's forms of a reward function, called as its published reward managers call them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rewardsteer.errors import DataError, NonFiniteError
from rewardsteer.integrations.verl import BatchedScoring, RewardFunction
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


class Gated(TextScorer):
    """Notes how many rows are scored together, and is used by one thread at a time; the first call
    waits until it is let go on."""

    def __init__(self):
        self.batches, self.busy = [], 0
        self.begun, self.go_on = threading.Event(), threading.Event()

    def score(self, prompts, completions, *, batch_size=16, closed=True):
        self.busy += 1
        assert self.busy == 1
        self.batches.append(len(prompts))
        self.begun.set()
        assert self.go_on.wait(30)
        self.busy -= 1
        if "nan" in completions:
            raise NonFiniteError("The reward of row 1 is nan.")
        return np.array([float(len(one)) for one in completions])


def ask_at_once(scorer, texts):
    """The rewards of texts: all but the first are asked while the first one is scored."""
    batched = BatchedScoring(scorer, batch_size=8)
    with ThreadPoolExecutor(len(texts)) as pool:
        asked = [pool.submit(batched.score, "p", texts[0])]
        assert scorer.begun.wait(30)
        asked += [pool.submit(batched.score, "p", text) for text in texts[1:]]
        deadline = time.monotonic() + 30
        while len(batched._waiting) < len(texts) - 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        scorer.go_on.set()
        return [one.exception() or one.result() for one in asked]


def test_questions_of_many_threads_are_scored_together():
    scorer = Gated()
    assert ask_at_once(scorer, ["x" * n for n in range(20)]) == [float(n) for n in range(20)]
    assert scorer.batches == [1, 8, 8, 3]


def test_a_row_that_cannot_be_scored_fails_alone():
    found = ask_at_once(Gated(), ["a", "bb", "nan", "ccc", "dddd", "e"])
    assert [one for one in found if not isinstance(one, Exception)] == [1, 2, 3, 4, 1]
    assert isinstance(found[2], NonFiniteError)
