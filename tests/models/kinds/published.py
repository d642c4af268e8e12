"""Tiny folders of the form in which published reward models lie, and the plain way to score them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    DebertaV2Config,
    DebertaV2Model,
    T5Config,
    T5ForConditionalGeneration,
)

from rewardsteer.models.kinds import load_scorer
from tests.chat import save_policy
from tests.fakes import CHARACTERS, character_tokenizer, spread_weights

SIZE = 32
PROMPTS = ["What is 7+8?", "Who?", "a b", "What is 7+8?", "zz"]
COMPLETIONS = ["It is 15.", "me", "c", "no idea, sorry", "1 2 3 4 5 6 7"]


def publish(
    folder: Path, head: dict[str, Tensor], *, family: str = "llama3", keep_lm_head: bool = False,
    prefix: tuple[str, str] = ("", ""), **config: Any,
) -> Path:
    """A tiny Llama with a chat family's tokenizer, whose language-model head gives way to ``head``;
    ``prefix`` renames the backbone's weights, ``config`` changes config.json (None: left out)."""
    save_policy(folder, family)
    weights = load_file(folder / "model.safetensors")
    if not keep_lm_head:
        weights.pop("lm_head.weight", None)
    old, new = prefix
    weights = {new + name.removeprefix(old): value for name, value in weights.items()}
    save_file(weights | head, folder / "model.safetensors", metadata={"format": "pt"})
    place = folder / "config.json"
    known = json.loads(place.read_text()) | config
    place.write_text(json.dumps({key: value for key, value in known.items() if value is not None}))
    return folder


def conversation(prompt: str | list[dict[str, str]], completion: str) -> list[dict[str, str]]:
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return [*turns, {"role": "assistant", "content": completion}]


def chat_ids(folder: Path, prompt: str | list[dict[str, str]], completion: str) -> list[int]:
    """Token ids of a conversation, rendered and tokenized in one call."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(conversation(prompt, completion), return_dict=False)
    return list(ids)


def backbone(folder: Path) -> Any:
    """The hidden states' model, loaded from a folder whose weights have transformers' names."""
    return AutoModel.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def states(model: Any, ids: list[int]) -> Tensor:
    """``[T, D]`` of one row, without padding."""
    return model(torch.tensor([ids])).last_hidden_state[0]


def check_order_and_batches(folder: Path, expected: np.ndarray, **options: Any) -> Any:
    """Scores equal the transcription whatever the batch, its padding and the order."""
    scorer = load_scorer(folder, device="cpu", **options)
    for size in (1, 2, 16):
        found = scorer.score(PROMPTS, COMPLETIONS, batch_size=size)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    turned = scorer.score(PROMPTS[::-1], COMPLETIONS[::-1], batch_size=3)
    np.testing.assert_allclose(turned[::-1], expected, atol=1e-5)
    return scorer


def random(*shape: int, seed: int = 0) -> Tensor:
    """Weights of a size that keeps rewards apart."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def save_pair_encoder(folder: Path, *, seed: int = 0, tasks: int = 1, **config: Any) -> Path:
    """As llm-blender/PairRM-hf: an encoder under ``pretrained_model`` and ``head_layer``."""
    torch.manual_seed(seed)
    tokenizer = _pair_tokenizer()
    marks = tokenizer.convert_tokens_to_ids(["<|source|>", "<|candidate1|>", "<|candidate2|>"])
    made = DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=SIZE, intermediate_size=SIZE, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, relative_attention=True,
        position_buckets=16, norm_rel_ebd="layer_norm", share_att_key=True,
        pos_att_type=["p2c", "c2p"], position_biased_input=False, type_vocab_size=0,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = DebertaV2Model(made).eval()
    spread_weights(model, 0.2)
    weights = {f"pretrained_model.{name}": value for name, value in model.state_dict().items()}
    head = {
        "head_layer.1.weight": random(SIZE, 2 * SIZE, seed=1), "head_layer.1.bias": random(SIZE),
        "head_layer.4.weight": random(tasks, SIZE, seed=2), "head_layer.4.bias": random(tasks),
    }
    folder.mkdir()
    save_file({name: value.contiguous() for name, value in (weights | head).items()},
              folder / "model.safetensors", metadata={"format": "pt"})
    known = made.to_dict() | {
        "architectures": ["DebertaV2PairRM"], "n_tasks": tasks, "drop_out": 0.05,
        "source_prefix_id": marks[0], "cand_prefix_id": marks[0], "cand1_prefix_id": marks[1],
        "cand2_prefix_id": marks[2],
    } | config
    (folder / "config.json").write_text(
        json.dumps({key: value for key, value in known.items() if value is not None})
    )
    tokenizer.save_pretrained(folder)
    return folder


def _pair_tokenizer() -> Any:
    tokenizer = character_tokenizer(CHARACTERS + "<>/")
    tokenizer.add_special_tokens({
        "cls_token": "[CLS]", "sep_token": "[SEP]",
        "additional_special_tokens": ["<|source|>", "<|candidate1|>", "<|candidate2|>"],
    })
    ends = [(one, tokenizer.convert_tokens_to_ids(one)) for one in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return tokenizer


@torch.no_grad()
def pair_encoder_logit(folder: Path, source: str, first: str, second: str) -> float:
    """PairRM's own forward pass of one pair: how much better the first is than the second."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    model = DebertaV2Model(DebertaV2Config.from_dict(config)).eval()
    model.load_state_dict({
        name.removeprefix("pretrained_model."): value for name, value in weights.items()
        if name.startswith("pretrained_model.")
    })
    ids = tokenizer.encode(f"<|source|>{source}")
    ids += tokenizer.encode(f"<|candidate1|>{first}") + tokenizer.encode(f"<|candidate2|>{second}")
    row = torch.tensor([ids])
    encoded = model(row, output_hidden_states=True).hidden_states[-1]
    states = [encoded[row == config[f"{name}_prefix_id"]] for name in ("source", "cand1", "cand2")]
    values = []
    for one in states[1:]:
        hidden = torch.cat([states[0], one], dim=-1)
        hidden = hidden @ weights["head_layer.1.weight"].T + weights["head_layer.1.bias"]
        values.append(
            hidden.tanh() @ weights["head_layer.4.weight"].T + weights["head_layer.4.bias"]
        )
    return float((values[0] - values[1]).mean())


# The template of RLHFlow's card for the dialogue before the responses.
_DIALOGUE = (
    "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n "
    "{{ message['content'] }}{% else %}\n\n<turn> assistant\n {{ message['content'] }}{% endif %}"
    "{% endfor %}\n\n\n"
)


@torch.no_grad()
def answered_preference(
    folder: Path, dialogue: list[dict[str, str]], responses: tuple[str, str]
) -> float:
    """RLHFlow's card: the mean probability of the first response over both positions."""
    tokenizer, plain = (AutoTokenizer.from_pretrained(folder) for _ in range(2))
    plain.chat_template = _DIALOGUE
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    context = plain.apply_chat_template(dialogue, tokenize=False)
    letters = [tokenizer.encode(one, add_special_tokens=False)[0] for one in ("A", "B")]
    found = []
    for position in (0, 1):
        one, other = responses[position], responses[1 - position]
        text = f"[CONTEXT] {context} [RESPONSE A] {one} [RESPONSE B] {other} \n"
        written = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False
        ).replace(tokenizer.bos_token, "")
        ids = tokenizer.encode(written, return_tensors="pt", add_special_tokens=False)
        logits = [float(model(ids).logits[0, -1, letter]) for letter in letters]
        found.append(np.exp(logits[position]) / np.exp(logits).sum())
    return float(np.mean(found))


def save_seq2seq(folder: Path) -> Path:
    """As stanfordnlp/SteamSHP-flan-t5-large: a T5 model whose tokenizer ends texts with its end."""
    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    model = T5ForConditionalGeneration(T5Config(
        vocab_size=len(tokenizer), d_model=SIZE, d_kv=8, d_ff=2 * SIZE, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        decoder_start_token_id=tokenizer.pad_token_id, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )).eval()
    spread_weights(model, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def written_preference(folder: Path, context: str, responses: tuple[str, str]) -> float:
    """SteamSHP's card: the first token that is generated, A or B; the mean over both positions."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    letters, found = [tokenizer.convert_tokens_to_ids(one) for one in "AB"], []
    for position in (0, 1):
        one, other = responses[position], responses[1 - position]
        text = (f"POST: {context}\n\n RESPONSE A: {one}\n\n RESPONSE B: {other}\n\n Which response "
                "is better? RESPONSE")
        made = model.generate(
            **tokenizer([text], return_tensors="pt"), max_new_tokens=1, do_sample=False,
            output_logits=True, return_dict_in_generate=True,
        )
        logits = made.logits[0][0, letters].double().numpy()
        found.append(np.exp(logits[position]) / np.exp(logits).sum())
    return float(np.mean(found))
