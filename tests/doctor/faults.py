"""Tiny reward models, each with one fault that public models have."""

import json

import torch
from safetensors.torch import load_file, save_file

from tests.chat import LLAMA3, save_classifier


def healthy(folder):
    """A classifier whose padding token ends no text."""
    return save_classifier(folder, "qwen")


def pad_is_eos(folder):
    """Its texts end with the padding token."""
    return save_classifier(folder, "llama3-pad-eos")


def change(folder, name, **fields):
    """Set fields of a JSON file in a folder; None removes one."""
    place = folder / name
    held = json.loads(place.read_text()) | fields
    place.write_text(json.dumps({key: value for key, value in held.items() if value is not None}))


def labelled(folder, names):
    """A classifier with several labels."""
    save_classifier(folder, "qwen")
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"] = weights["score.weight"].repeat(len(names), 1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    change(folder, "config.json", id2label={str(n): name for n, name in enumerate(names)},
           label2id={name: n for n, name in enumerate(names)})
    return folder


def in_steps(folder):
    """A classifier in bfloat16 whose rewards lie closer to each other than its steps."""
    from transformers import AutoModelForSequenceClassification

    save_classifier(folder, "qwen")
    model = AutoModelForSequenceClassification.from_pretrained(folder).to(torch.bfloat16)
    with torch.no_grad():
        # All texts end with the same token, and little of the others reaches its state.
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(0.02)
    model.save_pretrained(folder)
    return folder


def twice_begun(folder):
    """A classifier whose chat template writes beginning-of-text twice."""
    save_classifier(folder, "llama3")
    (folder / "chat_template.jinja").write_text("{{ bos_token }}" + LLAMA3)
    return folder


def adapter(folder, *, head):
    """A LoRA adapter of a classifier, with or without the weights of its head."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = save_classifier(folder.parent / "base", "qwen")
    model = AutoModelForSequenceClassification.from_pretrained(base)
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"]))
    model.save_pretrained(folder)
    if not head:
        weights = load_file(folder / "adapter_model.safetensors")
        kept = {name: value for name, value in weights.items() if "score" not in name}
        assert len(kept) < len(weights)
        save_file(kept, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder
