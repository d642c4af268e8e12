"""Small vocabularies, every sequence enumerated: sampled answers of the segment guides have the
distribution that the methods define."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guides.args import Args
from rewardsteer.decoding.guides.cd import Cd
from rewardsteer.decoding.guides.genarm import GenArm
from rewardsteer.decoding.guides.pargs import Pargs
from rewardsteer.decoding.strategies.cards import Cards
from rewardsteer.decoding.strategies.goal_filter import GoalFilter
from rewardsteer.decoding.strategies.speculative_rejection import SpeculativeRejection
from rewardsteer.goals.goal_state import GoalState, Provenance
from tests.decoding.tables import TableScorer, answers

COUNT = 1000


def table(size, length, seed, scale=1.0):
    """A number for every sequence of up to ``length`` tokens."""
    draws = np.random.default_rng(seed)
    return {
        y: float(scale * draws.normal())
        for n in range(length + 1) for y in itertools.product(range(size), repeat=n)
    }


def policy(size, seed):
    """Next-token logits by prefix: sharp after some, flat after others."""
    draws, known = np.random.default_rng(seed), {}
    for n in range(4):
        for y in itertools.product(range(size), repeat=n):
            known[y] = (draws.normal(size=size) * draws.choice([0.2, 2.0])).tolist()
    return known.__getitem__


def softmax(values):
    weights = np.exp(np.array(values) - max(values))
    return weights / weights.sum()


def assert_distributed(seen, probability):
    assert sum(probability.values()) == pytest.approx(1.0)
    count = seen.total()
    likely = [y for y, p in probability.items() if p * count >= 5]
    rest = 1 - sum(probability[y] for y in likely)
    assert len(likely) > 4
    observed = [seen[y] for y in likely] + [count - sum(seen[y] for y in likely)]
    expected = [probability[y] * count for y in likely] + [rest * count]
    if rest * count < 1e-9:
        assert observed.pop() == 0
        expected.pop()
    assert chisquare(observed, expected).pvalue > 1e-3


@pytest.mark.parametrize(("rejections", "share"), [(1, 1.0), (2, 0.5), (3, 1.0)])
def test_cards(rejections, share):
    size, length = 3, 3
    logits, rewards = policy(size, 1), table(size, length, 2)
    config = DecodingConfig(
        method="cards", top_k=0, max_new_tokens=length, reward_target=0.8, acceptance=0.6,
        reward_share=share, max_rejections=rejections, entropy_threshold=1.05, segment_min=1,
        segment_tokens=2,
    )
    scorer = TableScorer(rewards.__getitem__, "scalar", size)
    seen = Counter(answers(Cards(scorer, config), logits, config, count=COUNT, places=200))
    first = (1 - share) * rewards[()] + share * 0.8

    def proposals(start, y=None, p=1.0):
        y = start if y is None else y
        next_ = softmax(logits(y)) if len(y) < length else None
        grown = len(y) - len(start)
        unsure = next_ is not None and -(next_ * np.log(next_)).sum() >= 1.05
        if len(y) == length or grown == 2 or (grown >= 1 and unsure):
            yield y, p
            return
        for v in range(size):
            yield from proposals(start, (*y, v), p * next_[v])

    def accepted(y):
        needed = first + (0.8 - first) * len(y) / length
        return min(1.0, math.exp((rewards[y] - needed) / 0.6))

    def after(start):
        """Distribution of the segment that is taken."""
        several, taken = list(proposals(start)), Counter()
        for count in range(1, rejections + 1):
            for drawn in itertools.product(several, repeat=count):
                p = math.prod(q for _, q in drawn)
                for y, _ in drawn[:-1]:
                    p *= 1 - accepted(y)
                last = drawn[-1][0]
                taken[last] += p * accepted(last)
                if count == rejections:
                    best = max((y for y, _ in drawn), key=rewards.__getitem__)
                    taken[best] += p * (1 - accepted(last))
        return taken

    whole, growing = Counter(), Counter({(): 1.0})
    while growing:
        start, p = growing.popitem()
        for y, q in after(start).items():
            (whole if len(y) == length else growing)[y] += p * q
    assert_distributed(seen, whole)


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_speculative_rejection(share):
    size, length, n = 2, 3, 3
    logits, rewards = policy(size, 3), table(size, length, 4)
    config = DecodingConfig(
        method="speculative_rejection", top_k=0, max_new_tokens=length, n=n, decision_tokens=1,
        reject_share=share, batch_size=60,
    )
    method = SpeculativeRejection(TableScorer(rewards.__getitem__, "scalar", size), config)
    seen = Counter(answers(method, logits, config, count=COUNT))
    probability = Counter()
    for drawn in itertools.product(sequences(logits, size, length), repeat=n):
        growing = list(range(n))
        for step in (1, 2):
            if len(growing) > 1 and len(growing) * step >= n:
                growing.sort(key=lambda k: (rewards[drawn[k][0][:step]], -k))
                growing = growing[max(1, int(share * len(growing))):]
        best = max(sorted(growing), key=lambda k: rewards[drawn[k][0]])
        probability[drawn[best][0]] += math.prod(p for _, p in drawn)
    assert_distributed(seen, probability)


@pytest.mark.parametrize("stop", ["none", "esc", "adaptive"])
def test_goal_filter(stop):
    size, length, n = 2, 3, 4
    logits, near = policy(size, 5), table(size, length, 6)
    config = DecodingConfig(
        method="goal_filter", top_k=0, max_new_tokens=length, n=n, drop_start=1,
        drop_threshold=-0.3, batch_size=50, vote_stop=stop, vote_window=2, vote_confidence=0.8,
    )
    goal = GoalState("g", torch.ones(1, 1), Provenance(kind="mean", model_fingerprint=""))
    method = GoalFilter(TableScorer(near.__getitem__, "scalar", size), config, goal)
    seen = Counter(answers(method, logits, config, count=COUNT))
    probability = Counter()
    for drawn in itertools.product(sequences(logits, size, length), repeat=n):
        kept = []
        for y, _ in drawn:
            if min(near[y[:2]], near[y]) >= -0.3:
                kept.append(y)
                votes = Counter(one[-1] for one in kept)  # the last number is the answer
                if stop == "esc" and len(kept) % 2 == 0 and kept[-1][-1] == kept[-2][-1]:
                    break
                counts = sorted(votes.values(), reverse=True)
                # Beta(3, 1) lies above a half with probability 7/8, Beta(2, 1) with 3/4.
                if stop == "adaptive" and counts in ([2], [3], [4], [3, 1]):
                    break
        kept = kept or [y for y, _ in drawn]
        votes = Counter(one[-1] for one in kept)
        answer = next(y for y in kept if votes[y[-1]] == max(votes.values()))
        probability[answer] += math.prod(p for _, p in drawn)
    assert_distributed(seen, probability)


def sequences(logits, size, length):
    """Every sequence and its probability under the policy."""
    found = []
    for y in itertools.product(range(size), repeat=length):
        p = math.prod(softmax(logits(y[:i]))[y[i]] for i in range(length))
        found.append((y, p))
    return found


@pytest.mark.parametrize(("make", "kind", "objective"), [
    (Args, "scalar", ""), (Pargs, "scalar", "partial"), (Cd, "scalar", "partial"),
    (GenArm, "vocabulary", "autoregressive"),
])
def test_token_guides(make, kind, objective):
    """Those whose distribution no other test enumerates; candidates are the two best of three."""
    size, length, k = 3, 3, 2
    logits, rewards = policy(size, 7), table(size, length, 8)
    scorer = TableScorer(rewards.__getitem__, kind, size)
    scorer.objective = objective
    config = DecodingConfig(
        top_k=k if kind == "scalar" else 0, max_new_tokens=length, weight=0.7, temperature=1.3
    )
    seen = Counter(answers(make(scorer, config), logits, config, count=COUNT, places=300))
    probability = Counter()
    for y in itertools.product(range(size), repeat=length):
        p = 1.0
        for i in range(length):
            base = np.array(logits(y[:i]))
            guide = np.array([rewards[(*y[:i], v)] for v in range(size)])
            if kind == "vocabulary":
                guide = np.log(softmax(guide))
            scores = (base + 0.7 * guide) / 1.3
            if kind == "scalar":
                scores[np.argsort(base)[: size - k]] = -np.inf
            p *= softmax(scores)[y[i]]
        probability[y] += p
    assert_distributed(seen, {y: p for y, p in probability.items() if p > 0})
