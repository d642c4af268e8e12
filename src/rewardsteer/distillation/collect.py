"""Collecting the teacher's rewards at positions of the policy's own samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardsteer.data.digests import digest
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.distillation.config import CandidateConfig, DistilConfig
from rewardsteer.distillation.records import Record, Source, begin_records, write_shard
from rewardsteer.distillation.teacher import Asked, TextTeacher, TokenTeacher
from rewardsteer.models.backbone import accepts, backbone_of
from rewardsteer.models.batching import right_pad
from rewardsteer.models.logits import is_neutral

# Prompts of a shard, the most that a resumed run repeats.
_PROMPTS = 32
Announce = Callable[[int, int], None]


@dataclass(frozen=True)
class Policy:
    """The policy that samples."""

    model: Any
    tokenizer: Any
    template: Template


def shard_count(prompts: int) -> int:
    """How many shards the records of so many prompts have."""
    return -(-prompts // _PROMPTS)


def collect(
    policy: Policy, teacher: TokenTeacher | TextTeacher, requests: Sequence[Request],
    config: DistilConfig, source: Source, folder: Path, *, announce: Announce = lambda *_: None,
) -> None:
    """Sample responses, ask the teacher and write records, shard by shard; existing shards are
    kept.

    Args:
        policy, teacher: see there.
        requests: with their ``prompt_ids``.
        source: the contents of the manifest.
        announce: called with shards done and in all.

    Raises:
        MismatchError: the folder holds records made otherwise.
        RewardsteerError: a prompt cannot be answered or judged.
    """
    for number in begin_records(folder, source):
        announce(number, source.shards)
        some = requests[number * _PROMPTS : (number + 1) * _PROMPTS]
        samples = _sample(policy, some, config)
        rows = []
        size = config.candidates.batch_size
        for begin in range(0, len(samples), size):
            rows += _records(policy, teacher, samples[begin : begin + size], config)
        write_shard(folder, number, rows)
    announce(source.shards, source.shards)


@dataclass(frozen=True)
class _Sample:
    id: str
    request: Request
    prompt_ids: list[int]
    response_ids: list[int]


def _sample(
    policy: Policy, requests: Sequence[Request], config: DistilConfig
) -> list[_Sample]:
    """Responses with at least one token."""
    settings = DecodingConfig(
        method="none", mode="sample", temperature=config.sampling.temperature, top_k=0, top_p=1.0,
        min_p=0.0, max_new_tokens=config.sampling.max_new_tokens,
        batch_size=config.sampling.batch_size, seed=config.seed,
    )
    asked = {
        f"{request.id}/{number}": request for request in requests
        for number in range(config.sampling.per_prompt)
    }
    named = [request.model_copy(update={"id": name}) for name, request in asked.items()]
    found = []
    for one in generate(
        policy.model, policy.tokenizer, named, build_method(settings), settings,
        template=policy.template,
    ):
        request = asked[one.id]
        assert request.prompt_ids is not None, "prompts are encoded before"
        if one.token_ids and one.error is None:
            found.append(_Sample(one.id, request, request.prompt_ids, list(one.token_ids)))
    return found


def _records(
    policy: Policy, teacher: TokenTeacher | TextTeacher, samples: Sequence[_Sample],
    config: DistilConfig,
) -> list[Record]:
    candidates, asked, known = config.candidates, [], []
    for sample, log_probs in zip(samples, log_probabilities(policy, samples), strict=True):
        rng = np.random.default_rng(int(digest([config.seed, sample.id]), 16))
        lengths = draw_positions(log_probs, candidates, rng)
        drawn = np.array(sample.response_ids)[lengths]
        tokens, places = choose_candidates(log_probs[lengths], drawn, candidates.top_k)
        unseen = draw_unseen(tokens, log_probs.shape[1], candidates.unseen, rng)
        logs = log_probs[lengths].gather(1, torch.from_numpy(tokens)).numpy()
        known.append((logs, places, unseen))
        asked.append(Asked(
            sample.request.prompt, sample.prompt_ids, sample.response_ids, lengths.tolist(), tokens
        ))
    rewards = teacher.rewards(asked)
    return [
        Record(
            id=sample.id, group=sample.request.id, prompt_ids=list(sample.prompt_ids),
            chosen_ids=sample.response_ids, rejected_ids=[],
            candidate_lengths=list(one.lengths), tokens=one.tokens.tolist(),
            log_policy=logs.tolist(), teacher=values.tolist(), drawn=places.tolist(),
            unseen=unseen.tolist(),
        )
        for sample, one, values, (logs, places, unseen) in zip(
            samples, asked, rewards, known, strict=True
        )
    ]


@torch.no_grad()
def log_probabilities(policy: Policy, samples: Sequence[_Sample]) -> list[Tensor]:
    """The policy's log-probabilities ``[T, V]`` (float32, on the CPU) before each token of every
    response, at temperature 1 over the tokens of its tokenizer."""
    model, count = policy.model, len(policy.tokenizer)
    rows = [[*sample.prompt_ids, *sample.response_ids] for sample in samples]
    # Padding is on the right, where no token sees it.
    ids = right_pad(rows)[0].to(model.device)
    width = ids.shape[1]
    backbone, layer = backbone_of(model), model.get_output_embeddings()
    plain = is_neutral(model.config) and layer is not None
    states = backbone(input_ids=ids, use_cache=False).last_hidden_state if plain else None
    found = []
    for row, sample in enumerate(samples):
        columns = slice(len(sample.prompt_ids) - 1, len(rows[row]) - 1)
        if states is not None:
            logits = layer(states[row, columns])
        else:
            options: dict[str, Any] = {"use_cache": False}
            if accepts(model, "logits_to_keep"):
                options["logits_to_keep"] = width - columns.start
            whole = model(input_ids=ids[row : row + 1], **options).logits[0]
            whole = whole[whole.shape[0] - (width - columns.start) :]
            logits = whole[: columns.stop - columns.start]
        found.append(logits[:, :count].float().log_softmax(dim=-1).cpu())
    return found


def draw_positions(
    log_probs: Tensor, config: CandidateConfig, rng: np.random.Generator
) -> np.ndarray:
    """At most ``positions`` ascending positions of ``[T, V]`` log-probabilities."""
    entropy = torch.special.entr(log_probs.exp()).sum(dim=-1).double().numpy()
    weights = entropy + 1e-9 if config.draw == "entropy" else np.ones(len(entropy))
    # The largest of log weight + Gumbel noise are a draw without replacement.
    keys = np.log(weights) + rng.gumbel(size=len(weights))
    return np.sort(np.argsort(-keys)[: config.positions])


def choose_candidates(
    log_probs: Tensor, drawn: np.ndarray, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens ``[n, K]`` and which of them the response goes on with ``[n]``, from log-probabilities
    ``[n, V]``."""
    tokens = log_probs.topk(min(top_k, log_probs.shape[1]), dim=1).indices.numpy()
    found = tokens == drawn[:, None]
    places = np.where(found.any(axis=1), found.argmax(axis=1), tokens.shape[1] - 1)
    tokens[np.arange(len(tokens)), places] = drawn
    return tokens, places


def draw_unseen(
    tokens: np.ndarray, vocabulary: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Random tokens ``[n, U]`` that are none of the candidates ``[n, K]``; no column where all
    tokens of the vocabulary are candidates."""
    if vocabulary <= tokens.shape[1]:
        return np.zeros((len(tokens), 0), dtype=np.int64)
    found = rng.integers(vocabulary, size=(len(tokens), count))
    while (taken := (found[:, :, None] == tokens[:, None, :]).any(axis=2)).any():
        found[taken] = rng.integers(vocabulary, size=int(taken.sum()))
    return found
