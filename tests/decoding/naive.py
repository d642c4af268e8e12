"""Guided decoding as the published scripts do it: batch 1, no cache, all read anew each step."""

import torch


@torch.no_grad()
def naive_greedy(policy, scorer, prompt_ids, config, stop_ids):
    """Token ids that each method's equation gives, with the least machinery."""
    row, generated = list(prompt_ids), []
    for _ in range(config.max_new_tokens):
        logits = policy(torch.tensor([row])).logits[0, -1]
        if config.method == "none":
            scores = logits
        elif config.method in ("farma", "genarm"):
            rewards = scorer.reward_model.carrier(torch.tensor([row])).logits[0, -1]
            if config.method == "genarm":
                rewards = rewards.log_softmax(-1)
            scores = logits + config.weight * rewards
        else:
            log_p, best = logits.log_softmax(-1).topk(config.top_k)
            scores = torch.full_like(logits, float("-inf"))
            for p, v in zip(log_p, best, strict=True):
                ids = torch.tensor([[*row, int(v)]])
                states = scorer.reward_model.backbone(input_ids=ids).last_hidden_state
                scores[v] = p + config.weight * scorer.reward_model.carrier.score(states)[0, -1, 0]
        token = int(scores.argmax())
        row.append(token)
        generated.append(token)
        if token in stop_ids:
            break
    return generated
