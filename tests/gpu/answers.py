"""`python -m tests.gpu.answers SETTINGS.json`: greedy answers of a vLLM in a process of its own.

A process gives all memory of its GPU back, and reads vLLM's environment anew. ``OUT.json`` gets the
tokens of each request, and the scores that the first token of each was chosen by.
"""

import json
import sys
from pathlib import Path

import vllm
from rewardsteer.decoding.engines.vllm_settings import guided_by
from rewardsteer.decoding.engines.vllm_start import start
from tests.vllm.models import LENGTH, WEIGHTS, make_requests

COUNT, NEW = 64, 32


def weight_of(number):
    """Of the reward in a request's scores."""
    return WEIGHTS[number % len(WEIGHTS)]


def main(file):
    """Answer the requests of one file of settings."""
    settings = json.loads(Path(file).read_text())
    rewards, options = settings["rewards"], settings["options"]
    if rewards:
        options["hf_overrides"] = guided_by(rewards)
    llm = start(settings["policy"], **{
        "dtype": "bfloat16", "max_model_len": LENGTH, "max_num_seqs": COUNT,
        "gpu_memory_utilization": 0.3, "logprobs_mode": "processed_logits", "max_logprobs": -1,
    } | options)
    extra = {"reward_model": settings["asked"]} if rewards else {}
    parameters = [
        vllm.SamplingParams(
            temperature=0, max_tokens=NEW, logprobs=-1,
            extra_args={"reward_weight": weight_of(number)} | extra if rewards else None,
        )
        for number in range(COUNT)
    ]
    prompts = [{"prompt_token_ids": one.prompt_ids} for one in make_requests(COUNT)]
    outputs = [one.outputs[0] for one in llm.generate(prompts, parameters, use_tqdm=False)]
    Path(settings["out"]).write_text(json.dumps([
        [list(one.token_ids) for one in outputs],
        [{token: found.logprob for token, found in one.logprobs[0].items()} for one in outputs],
    ]))


if __name__ == "__main__":
    main(sys.argv[1])
