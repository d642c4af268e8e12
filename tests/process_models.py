"""Tiny process reward models, each a folder of exactly the published form, and what their authors'
scripts compute from it, one solution at a time."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import normalizers
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    LlamaForTokenClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
    Qwen2Tokenizer,
)

from rewardsteer.outputs import read_json, write_json
from tests.chat import CHATML, chat_config, chat_tokenizer
from tests.fakes import CHARACTERS, character_tokenizer, spread_weights, tiny_causal_lm

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


def save_trl(folder: Path, seed: int = 0, labels: int = 2) -> Path:
    """As TRL's PRMTrainer leaves it."""
    torch.manual_seed(seed)
    model = LlamaForTokenClassification(chat_config("llama3", num_labels=labels)).eval()
    spread_weights(model, 0.2)
    model.save_pretrained(folder)
    chat_tokenizer("llama3").save_pretrained(folder)
    return folder


def plain_trl(
    folder: Path, prompt: str, steps: list[str], separator: str = "\n", *, begin: bool = True,
    difference: bool = False,
) -> list[float]:
    """Pieces tokenized apart, softmax at the last token of each separator."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if begin and tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    ends = []
    for step in steps:
        ids = ids + tokenizer(step, add_special_tokens=False)["input_ids"]
        ids = ids + tokenizer(separator, add_special_tokens=False)["input_ids"]
        ends.append(len(ids) - 1)
    with torch.no_grad():
        probabilities = model(torch.tensor([ids])).logits[0].softmax(-1)
    good = probabilities[ends, 1]
    return (good - probabilities[ends, 0] if difference else good).tolist()


def merging_tokenizer() -> Any:
    """Bytes, two merges, and Qwen's special tokens."""
    pieces = [*sorted(ByteLevel.alphabet()), "ĊĊ", ".ĊĊ"]
    return Qwen2Tokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[("Ċ", "Ċ"), (".", "ĊĊ")], eos_token="<|im_end|>", pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>", "<extra_0>"], chat_template=CHATML,
    )


def _qwen(folder: Path, architecture: str, head: dict[str, torch.Tensor]) -> Path:
    """A Qwen2 backbone and further tensors in one file, as custom classes save them."""
    tokenizer = merging_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 3, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=1024,
    )
    model = Qwen2ForCausalLM(config).eval()
    spread_weights(model, 0.2)
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    # What a mark is worth then depends on the text before it alone.
    weights["model.embed_tokens.weight"][tokenizer.convert_tokens_to_ids("<extra_0>")] = 0
    save_file(weights | head, folder / "model.safetensors", metadata={"format": "pt"})
    written = read_json(folder / "config.json")
    written["architectures"] = [architecture]
    written["auto_map"] = {"AutoModel": f"modeling_qwen2_rm.{architecture}"}
    write_json(folder / "config.json", written)
    tokenizer.save_pretrained(folder)
    return folder


def save_qwen(folder: Path, seed: int = 0, sharpness: float = 1.0) -> Path:
    """As Qwen2.5-Math-PRM: ``score`` is Linear-ReLU-Linear, its own code is named and absent."""
    torch.manual_seed(seed)
    head = {
        "score.0.weight": torch.randn(32, 32), "score.0.bias": torch.randn(32),
        "score.2.weight": sharpness * torch.randn(2, 32) / 24, "score.2.bias": torch.randn(2),
    }
    return _qwen(folder, "Qwen2ForProcessRewardModel", head)


def plain_qwen(
    folder: Path, prompt: str, steps: list[str], system: str | None = SYSTEM
) -> list[float]:
    """The card's script: chat template, softmax at each ``<extra_0>``."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    backbone = Qwen2Model.from_pretrained(folder, dtype=torch.float32).eval()
    weights = load_file(folder / "model.safetensors")
    messages = [
        *([{"role": "system", "content": system}] if system else []),
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    ids = torch.tensor([tokenizer.encode(text)])
    with torch.no_grad():
        hidden = backbone(ids).last_hidden_state[0]
        middle = (hidden @ weights["score.0.weight"].T + weights["score.0.bias"]).relu()
        logits = middle @ weights["score.2.weight"].T + weights["score.2.bias"]
    marks = ids[0] == tokenizer.convert_tokens_to_ids("<extra_0>")
    return logits.softmax(-1)[marks][:, 1].tolist()


def save_skywork(folder: Path, seed: int = 0) -> Path:
    """As Skywork-o1-Open-PRM: a causal model's weights and ``v_head.summary``."""
    torch.manual_seed(seed)
    head = {"v_head.summary.weight": torch.randn(1, 32), "v_head.summary.bias": torch.randn(1)}
    return _qwen(folder, "Qwen2ForPrmModel", head)


def plain_skywork(folder: Path, prompt: str, steps: list[str]) -> list[float]:
    """``prepare_input`` of the published scripts and the value head's sigmoid, for each line of the
    steps; those at the ends of steps."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    backbone = AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    weights = load_file(folder / "model.safetensors")
    ids = tokenizer.encode((tokenizer.bos_token or "") + prompt + "\n")
    ends = []
    for step in steps:
        for line in step.split("\n"):
            ids = [*ids, *(tokenizer.encode(line) if line else []), tokenizer.encode("\n")[-1]]
        ends.append(len(ids) - 1)
    with torch.no_grad():
        hidden = backbone.eval()(torch.tensor([ids])).last_hidden_state[0]
    values = hidden @ weights["v_head.summary.weight"].T + weights["v_head.summary.bias"]
    return values[ends, 0].sigmoid().tolist()


def save_shepherd(folder: Path, kind: str = "mistral", seed: int = 0) -> Path:
    """As Math-Shepherd: an ordinary causal model whose vocabulary has the mark."""
    tokenizer = character_tokenizer()
    tokenizer.add_tokens(["ки"])
    return _save_causal(folder, tokenizer, kind, seed)


def _save_causal(
    folder: Path, tokenizer: PreTrainedTokenizerFast, kind: str, seed: int
) -> Path:
    model = tiny_causal_lm(kind, vocab_size=len(tokenizer), seed=seed)
    spread_weights(model, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def plain_shepherd(folder: Path, prompt: str, steps: list[str]) -> list[float]:
    """The card's script: softmax over ``+`` and ``-`` at each mark."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    candidates = [tokenizer.convert_tokens_to_ids(token) for token in ("+", "-")]
    text = prompt + " " + "\n".join(f"{step} ки" for step in steps)
    ids = torch.tensor([tokenizer.encode(text)])
    with torch.no_grad():
        scores = model(ids).logits[:, :, candidates].softmax(-1)[:, :, 0]
    return scores[ids == tokenizer.convert_tokens_to_ids("ки")].tolist()


def save_rlhflow(folder: Path, family: str = "llama3", seed: int = 0) -> Path:
    """As RLHFlow's: a chat model."""
    return _save_causal(folder, chat_tokenizer(family), "llama", seed)


def plain_rlhflow(folder: Path, prompt: str, steps: list[str]) -> list[float]:
    """The published loop: one pass a step, position −3 of the conversation so far."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    candidates = [tokenizer.convert_tokens_to_ids(token) for token in ("+", "-")]
    conversation, found = [], []
    for number, step in enumerate(steps):
        text = f"{prompt} {step}" if number == 0 else step
        conversation.append({"content": text, "role": "user"})
        conversation.append({"content": "+", "role": "assistant"})
        ids = tokenizer.apply_chat_template(
            conversation, return_tensors="pt", return_dict=True
        )["input_ids"]
        with torch.no_grad():
            logits = model(ids).logits[:, -3, candidates]
        found.append(float(logits.softmax(-1)[0, 0]))
    return found


def save_reasoneval(folder: Path, begins: bool = False, seed: int = 0) -> Path:
    """As ReasonEval: a backbone and ``score_head`` of three classes; with ``begins``, the padding
    token is the beginning of text, which the tokenizer writes (ReasonEval-7B)."""
    torch.manual_seed(seed)
    tokenizer = character_tokenizer()
    if begins:
        tokenizer.bos_token = tokenizer.pad_token
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<pad> $A", special_tokens=[("<pad>", tokenizer.pad_token_id)]
        )
    _save_causal(folder, tokenizer, "mistral", seed)
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight", None)
    head = {"score_head.weight": torch.randn(3, 32)}
    if not begins:
        head["score_head.bias"] = torch.randn(3)
    save_file(weights | head, folder / "model.safetensors", metadata={"format": "pt"})
    written = read_json(folder / "config.json")
    written |= {"architectures": [f"ReasonEval_{'7B' if begins else '34B'}"],
                "score_dimension": 3, "use_bias": not begins}
    write_json(folder / "config.json", written)
    return folder


def plain_reasoneval(folder: Path, prompt: str, steps: list[str]) -> list[float]:
    """The published script, with its own arithmetic of positions: P(neutral) + P(positive)."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    backbone = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    weights = load_file(folder / "model.safetensors")
    mark = tokenizer.pad_token
    text = f"Question:\n{prompt}\nAnswer:\nLet's think step by step.\n" + mark + mark.join(steps)
    labelled, kept, count = [], [], 0
    for index, token in enumerate(tokenizer(text + mark)["input_ids"]):
        if token == tokenizer.pad_token_id:
            labelled.append(index - 1 - count)
            count += 1
        else:
            kept.append(token)
    if read_json(folder / "config.json")["architectures"] == ["ReasonEval_7B"]:
        kept, labelled = [tokenizer.bos_token_id, *kept], labelled[2:]
    else:
        labelled = labelled[1:]
    with torch.no_grad():
        hidden = backbone(torch.tensor([kept])).last_hidden_state[0]
    logits = hidden[labelled] @ weights["score_head.weight"].T
    logits = logits + weights.get("score_head.bias", torch.zeros(3))
    return logits.softmax(-1)[:, 1:].sum(-1).tolist()


def save_easy_to_hard(folder: Path, seed: int = 0) -> Path:
    """As ScalableMath's Llemma: an ordinary causal model; its tokenizer marks the beginning of a
    text as SentencePiece does."""
    tokenizer = character_tokenizer(CHARACTERS + "▁")
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return _save_causal(folder, tokenizer, "llama", seed)


def plain_easy_to_hard(folder: Path, prompt: str, steps: list[str]) -> list[float]:
    """The authors' script: all scores, and of each blank line behind the prompt, which ends with
    one, that at its first token."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    newline = tokenizer.convert_tokens_to_ids("\n")
    before = f"# Question\n\n{prompt}\n\n# Solution\n\n"
    length = len(tokenizer.encode(before))
    ids = tokenizer.encode(before + "".join(f"{step}\n\n" for step in steps))
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0].mean(dim=-1)
    places = [
        at for at in range(length, len(ids) - 1) if ids[at] == newline and ids[at + 1] == newline
    ]
    return scores[places].sigmoid().tolist()
