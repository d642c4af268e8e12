"""Settings of distillation. No torch here: the command line and recipes read it."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from rewardsteer.configuration import Config, Seed
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import LEAST_TEMPERATURE, MOST_TEMPERATURE
from rewardsteer.models.heads import LANGUAGE_MODEL_HEAD
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.training.shared_config import (
    TRAINING_ALIASES,
    LogConfig,
    OptimiserConfig,
    TrainerFields,
)


class SamplingConfig(Config):
    """The policy's own responses, at whose positions the teacher is asked.

    Attributes:
        per_prompt: responses drawn of each prompt.
        max_new_tokens: longest response.
        temperature: of the draws.
        batch_size: rows generated together.
    """

    per_prompt: int = Field(1, ge=1)
    max_new_tokens: int = Field(128, ge=1)
    temperature: float = Field(1.0, ge=LEAST_TEMPERATURE, le=MOST_TEMPERATURE)
    batch_size: int = Field(16, ge=1)


class CandidateConfig(Config):
    """The tokens whose rewards the teacher is asked for at a position.

    Attributes:
        top_k: the policy's most probable tokens; the one that the response goes on with takes the
            last one's place where it is not among them.
        unseen: random tokens per position that the teacher is not asked about; the loss holds them
            at the candidates' mean.
        positions: at most so many of each response, drawn without replacement.
        draw: ``uniform``, or ``entropy``: in proportion to the entropy of the policy there, because
            guidance changes more where the policy is uncertain.
        batch_size: responses scored together.
    """

    top_k: int = Field(20, ge=2)
    unseen: int = Field(2, ge=0)
    positions: int = Field(16, ge=1)
    draw: Literal["uniform", "entropy"] = "uniform"
    batch_size: int = Field(16, ge=1)


class DistilConfig(Config):
    """Settings of the distillation of a guide.

    Attributes:
        policy: folder or hub name of the causal language model that will be guided.
        teacher: the reward model that is asked: a folder, hub name or address of any kind. One with
            another tokenizer than the policy's scores texts.
        prompts: JSONL of prompts, as ``rewardsteer generate`` takes it; not needed with
            ``records``.
        records: the folder OUT/records of another run, with the same policy and teacher.
        base_model: the student's backbone, with the policy's tokenizer; None: the policy. With a
            frozen backbone the student then uses the policy's own states.
        head: the student's, of kind ``vocabulary``.
        freeze_backbone: train the head alone.
        sampling, candidates: of the records.
        template: how prompts are written; None: as the teacher says.
        test_fraction: share of the prompts that is held out for evaluation.
        loss: options of the objective ``distillation``; ``weight`` is that of the guidance to be.
        optimiser, log, trainer: as of ``rewardsteer train``.
        seed: of draws, of the split and of training.
    """

    aliases: ClassVar[dict[str, str]] = TRAINING_ALIASES | {
        "rank": "head.rank", "top_k": "candidates.top_k", "weight": "loss.weight",
        "max_new_tokens": "sampling.max_new_tokens", "reward_model": "teacher",
    }

    policy: str
    teacher: str
    prompts: str | None = None
    records: str | None = None
    base_model: str | None = None
    head: HeadConfig = HeadConfig(kind=LANGUAGE_MODEL_HEAD, layers="low_rank", rank=64)
    freeze_backbone: bool = True
    sampling: SamplingConfig = SamplingConfig()
    candidates: CandidateConfig = CandidateConfig()
    template: Template | None = None
    test_fraction: float = Field(0.1, gt=0, lt=1)
    loss: dict[str, Any] = Field(default_factory=dict)
    optimiser: OptimiserConfig = OptimiserConfig()
    log: LogConfig = LogConfig()
    trainer: TrainerFields = Field(default_factory=dict)
    seed: Seed = 0

    @model_validator(mode="after")
    def _fits(self) -> "DistilConfig":
        if self.head.kind != LANGUAGE_MODEL_HEAD:
            raise ValueError(
                f"a student has a head of kind {LANGUAGE_MODEL_HEAD}, not {self.head.kind}"
            )
        if (self.prompts is None) == (self.records is None):
            raise ValueError(
                "give prompts (to sample from) or records (of another run), not both; with "
                "records, prompts=null leaves out those of a recipe"
            )
        return self
