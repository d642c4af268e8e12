"""Tiny folders of kinds that some commands can use and others cannot."""

import json

import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaForTokenClassification

from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from tests.chat import chat_config, chat_tokenizer, save_classifier, save_policy
from tests.doctor.faults import labelled


def language_model(folder):
    """A language model, as a DPO policy alone is."""
    return save_policy(folder, "qwen")


def many_labels(folder):
    """A classifier of five labels that no known attributes are called after."""
    return labelled(folder, ["joy", "anger", "fear", "calm", "dread"])


def process_model(folder):
    """A token classifier of two labels, as TRL's PRMTrainer saves it."""
    torch.manual_seed(0)
    LlamaForTokenClassification(chat_config("qwen", num_labels=2)).save_pretrained(folder)
    chat_tokenizer("qwen").save_pretrained(folder)
    return folder


def encoder(folder):
    """A one-label classifier on an encoder, which reads a sentence pair."""
    torch.manual_seed(0)
    tokenizer = chat_tokenizer("qwen")
    tokenizer.chat_template = None
    BertForSequenceClassification(BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, num_labels=1, pad_token_id=tokenizer.pad_token_id,
    )).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def adapter_of_a_policy(folder):
    """A LoRA adapter of a language model, which has no head."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = save_policy(folder.parent / f"{folder.name}-base", "qwen")
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    ).save_pretrained(folder)
    return folder


def vocabulary(folder):
    """A reward model with a vocabulary head."""
    base = save_policy(folder.parent / f"{folder.name}-base", "qwen")
    head = HeadConfig(kind="vocabulary")
    RewardModel.from_base(base, head).save_pretrained(
        folder, chat_tokenizer("qwen"), CheckpointCard(head=head, objective="max_constraint")
    )
    return folder


def scalar(folder):
    """A one-label classifier on a decoder."""
    return save_classifier(folder, "qwen")


def pickled(folder):
    """A classifier whose weights are a pickle."""
    save_classifier(folder, "qwen")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder


def headless(folder):
    """A classifier by its configuration, without the weights of its head."""
    save_policy(folder, "qwen")
    place = folder / "config.json"
    config = json.loads(place.read_text())
    config |= {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    place.write_text(json.dumps(config))
    return folder


def nothing(folder):
    """An empty folder."""
    folder.mkdir()
    return folder


KINDS = {
    one.__name__: one for one in (
        language_model, many_labels, process_model, encoder, adapter_of_a_policy, vocabulary,
        scalar, pickled, headless, nothing,
    )
}


def unreadable_policy(folder):
    """A policy whose weights are no weights: a command that loads it says so."""
    save_policy(folder, "qwen")
    (folder / "model.safetensors").write_bytes(b"no weights")
    return folder
