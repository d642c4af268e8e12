"""Segment and group guides as their papers say, one response at a time, all read anew each step."""

import math
import random

import torch

from rewardsteer.answers import canonical_answer, extract_answer


def choose(logits, rng, config):
    """Inverse of the distribution function at a uniform number, over the ``top_k`` best."""
    if config.mode == "greedy":
        return int(logits.argmax())
    scores, tokens = logits.float() / config.temperature, torch.arange(len(logits))
    if 0 < config.top_k < len(logits):
        scores, tokens = scores.topk(config.top_k)
    cumulative = scores.softmax(0).double().cumsum(0)
    place = int((cumulative <= rng.random() * cumulative[-1]).sum())
    return int(tokens[min(place, len(tokens) - 1)])


class Naive:
    """A policy and a reward model without caches."""

    def __init__(self, policy, scorer, config, stop_ids, goal=None):
        self.policy, self.scorer, self.config = policy, scorer, config
        self.stop_ids, self.goal = stop_ids, goal
        self.samples = {}

    @torch.no_grad()
    def logits(self, row):
        return self.policy(torch.tensor([row])).logits[0, -1]

    @torch.no_grad()
    def states(self, row):
        return self.scorer.reward_model.backbone(input_ids=torch.tensor([row])).last_hidden_state[0]

    @torch.no_grad()
    def reward(self, row):
        return float(self.scorer.reward_model.carrier.score(self.states(row)[-1]))

    def similarities(self, row):
        return torch.cosine_similarity(self.states(row), self.goal.vectors, dim=1).tolist()

    def over(self, tokens):
        return tokens[-1] in self.stop_ids or len(tokens) >= self.config.max_new_tokens

    def closed(self, tokens):
        return self.scorer.close_response(tokens)

    def sample(self, prompt, name, number):
        """A whole response and nothing else."""
        if (name, number) not in self.samples:
            rng, tokens = random.Random(f"{self.config.seed}/{number}/{name}"), []
            while not tokens or not self.over(tokens):
                tokens.append(choose(self.logits([*prompt, *tokens]), rng, self.config))
            self.samples[name, number] = tokens
        return self.samples[name, number]


def cards(naive, prompt, name):
    config = naive.config
    rng = random.Random(f"{config.seed}/0/{name}")
    chances = random.Random(f"{config.seed}/-1/{name}")
    target, share = config.reward_target, config.reward_share
    first = (1 - share) * naive.reward(prompt) + share * target
    response, drawn = [], 0
    while not response or not naive.over(response):
        proposals = []
        while True:
            tokens = list(response)
            while True:
                logits = naive.logits([*prompt, *tokens])
                p, size = logits.softmax(0), len(tokens) - len(response)
                entropy = float(-(p * p.log()).nan_to_num().sum())
                if size >= config.segment_min and entropy >= config.entropy_threshold:
                    break
                tokens.append(choose(logits, rng, config))
                drawn += 1
                if naive.over(tokens) or size + 1 >= config.segment_tokens:
                    break
            judged = naive.closed(tokens) if naive.over(tokens) else tokens
            reward = naive.reward([*prompt, *judged])
            needed = first + (target - first) * min(1, len(tokens) / config.max_new_tokens)
            chance = 1.0 if reward >= needed else math.exp((reward - needed) / config.acceptance)
            proposals.append((reward, tokens))
            if chances.random() < chance:
                response = tokens
                break
            if len(proposals) == config.max_rejections:
                response = max(proposals, key=lambda one: one[0])[1]
                break
    return response, drawn


def speculative_rejection(naive, prompt, name):
    config = naive.config
    whole = {k: naive.sample(prompt, name, k) for k in range(config.n)}
    growing, length, drawn = set(whole), 0, 0
    finished = {}
    while growing:
        length += 1
        drawn += len(growing)
        for k in sorted(growing):
            if len(whole[k]) == length:
                growing.remove(k)
                finished[k] = naive.reward([*prompt, *naive.closed(whole[k])])
        if len(growing) > 1 and len(growing) * length >= config.n * config.decision_tokens:
            ranked = sorted(
                growing, key=lambda k: (naive.reward([*prompt, *whole[k][:length]]), -k)
            )
            growing -= set(ranked[: max(1, int(config.reject_share * len(ranked)))])
    best = max(sorted(finished), key=lambda k: finished[k])
    return whole[best], finished[best], drawn


def written(naive, prompt, tokens, calibration):
    """Tokens until a sample is dropped, and whether it is."""
    config, low = naive.config, 0
    known = naive.closed(tokens) if tokens[-1] in naive.stop_ids else tokens
    values = naive.similarities([*prompt, *tokens])[len(prompt) :]
    for i in range(config.drop_start, min(len(known), len(tokens))):
        value = values[i]
        if config.drop_rule == "probability":
            value = calibration.probability(i, value)
        low = low + 1 if value < config.drop_threshold else 0
        if low >= (config.drop_patience if config.drop_rule == "patience" else 1):
            return i + 1, True
    return len(tokens), False


def goal_filter(naive, prompt, name, text_of, calibration=None):
    """The answer, tokens drawn and samples begun."""
    config, kept, all_samples, drawn = naive.config, [], [], 0

    def answer(tokens):
        return canonical_answer(extract_answer(text_of(prompt, tokens)))

    for k in range(config.n):
        tokens = naive.sample(prompt, name, k)
        count, dropped = len(tokens), False
        if config.drop_rule != "none":
            count, dropped = written(naive, prompt, tokens, calibration)
        drawn += count
        all_samples.append(tokens)
        if not dropped:
            kept.append(tokens)
        answers = [answer(one) for one in kept]
        if config.vote_stop == "esc" and not dropped and len(kept) % config.vote_window == 0:
            window = answers[-config.vote_window :]
            if None not in window and len(set(window)) == 1:
                break
        if config.vote_stop == "adaptive" and kept:
            from scipy.stats import beta

            counts = sorted(
                (answers.count(one) for one in set(answers) - {None}), reverse=True
            )
            a, b = [*counts, 0, 0][:2]
            if beta.sf(0.5, a + 1, b + 1) >= config.vote_confidence:
                break
    if not kept:
        kept, drawn = all_samples, sum(map(len, all_samples))
    answers = [answer(one) for one in kept]
    given = [one for one in answers if one is not None]
    if not given:
        return kept[0], drawn, len(all_samples)
    most = max(given.count(one) for one in given)
    best = next(one for one in given if given.count(one) == most)
    return kept[answers.index(best)], drawn, len(all_samples)
