"""docs/from_published_code.md: every option of the published scripts has its counterpart there, or
a sentence that says why not."""

import re

from tests.docs.commands import ROOT

# Of arXiv 2407.13887's scripts, as their parsers name them.
TRAINING = """
    pretrain dataset dataset_probs save_path save_steps logging_steps eval_steps ckpt_path
    max_ckpt_num max_ckpt_mem max_epochs micro_train_batch_size train_batch_size max_samples
    load_checkpoint max_norm max_len l2 loss gradient_checkpointing seed local_rank zero_stage bf16
    learning_rate zpg adam_offload flash_attn compute_fp32_loss margin_loss aux_loss_coef
    grad_accum_dtype disable_trace_cache load_in_4bit lora_rank lora_alpha target_modules
    input_template gradient_checkpointing_use_reentrant contrastive_loss_beta unsim_samples
    sim_samples reward_model_strategy contrastive_strategy value_head_strategy
    source_state_percentile goal_state_percentile bos_token eos_token pad_token unk_token prompt_key
    chosen_key rejected_key apply_chat_template use_wandb wandb_org wandb_group wandb_project
    wandb_run_name
"""
EVALUATION = """
    completions_data_path goal_state_path reward_model_path save_dir filter_threshold benchmarks
    vanilla model_name eval_results_dir percentiles mask
"""


def test_every_option_is_on_the_page():
    page = (ROOT / "docs" / "from_published_code.md").read_text()
    named = set(re.findall(r"--([\w-]+)", page))
    assert sorted({*TRAINING.split(), *EVALUATION.split()} - named) == []
