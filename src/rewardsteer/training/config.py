"""Settings of training a reward model. No torch here."""

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from rewardsteer.configuration import Config, Seed
from rewardsteer.data.config import DataConfig
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.objectives.config import TermConfig
from rewardsteer.training.shared_config import (
    TRAINING_ALIASES,
    Callbacks,
    LearningRate,
    LogConfig,
    OptimiserConfig,
    Packing,
    TrainerFields,
)


class PhaseConfig(Config):
    """Training on one loss with a fresh optimiser and schedule.

    Attributes:
        objective: terms added up on the same batch.
        rows: comparisons drawn at random for this phase, in each round; None takes all. An
            objective on prefixes uses all prefixes that are listed for each comparison.
        prefix_rows: for such an objective, as in published code: prefixes drawn at random from
            those comparisons, each of them a row of its own. None takes whole comparisons.
        learning_rate: overrides the optimiser's for this phase.
    """

    objective: list[TermConfig] = Field(min_length=1)
    rows: int | None = Field(None, ge=1)
    prefix_rows: int | None = Field(None, ge=1)
    learning_rate: LearningRate | None = None

    @property
    def name(self) -> str:
        """Terms joined with ``+``."""
        return "+".join(term.name for term in self.objective)


class LoraSettings(Config):
    """Low-rank adapters instead of full weights (arXiv 2106.09685).

    Attributes:
        rank, alpha, dropout, target_modules: as in peft.
        merge: fold them into the weights at the end. False keeps them as an ordinary peft folder
            with the head, which is small and can share a policy's weights.
    """

    aliases: ClassVar[dict[str, str]] = {
        "r": "rank", "lora_rank": "rank", "lora_r": "rank", "lora_alpha": "alpha",
        "lora_dropout": "dropout", "lora_target_modules": "target_modules",
    }

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"
    merge: bool = True


class QuantizeSettings(Config):
    """The frozen backbone rounded to few bits (QLoRA, arXiv 2305.14314), through bitsandbytes.

    Attributes:
        kind: ``nf4``, ``fp4`` (4 bits) or ``int8``.
        double: round the scales of 4-bit blocks too; saves 0.4 bits a weight.
    """

    kind: Literal["nf4", "fp4", "int8"] = "nf4"
    double: bool = True


class TrainConfig(Config):
    """Settings of a reward model's training.

    Attributes:
        base_model: folder or hub name of a causal language model.
        head: the head to put on it.
        policy: folder or hub name of the causal language model whose next-token probabilities the
            backups ``policy_soft``, ``policy_mean`` and ``policy_top_k`` of the maximum constraint
            take; None: ``base_model``, where it is no reward model yet.
        data: what to prepare; not needed when ``prepared`` is given.
        prepared: a folder made by ``rewardsteer data prepare``.
        phases: the phases of one round, in order.
        rounds: how often the phases are repeated (FaRMA's alternation, arXiv 2502.04517).
        last_phase: name of the phase with which the last round ends; None: its last phase.
        select: which weights become the final model: the ``last``, or the ``best`` on the test
            split's accuracy, among the ends of phases named like the last one and, with
            ``log.eval_steps`` and ``log.save_steps``, among the checkpoints within a phase.
        optimiser: see `OptimiserConfig`.
        log: see `LogConfig`.
        trainer: other fields of `transformers.TrainingArguments` by their own names: ``optim``,
            ``lr_scheduler_kwargs``, ``save_total_limit``, ``run_name``, ``torch_compile``, …
        callbacks: ``module:Class`` names, or names with options, see `CallbackConfig`.
        lora: adapters instead of full weights; None trains all weights.
        quantize: round the frozen backbone; needs ``lora``. The final model is a plain one: the
            rounded weights with the adapters merged in.
        attn_implementation: ``sdpa``, ``eager``, ``flash`` (flash-attn 2), ``flex``, or any name
            that transformers knows (``flash_attention_3``, …); None: automatic.
        padding_side: side on which training batches are padded.
        packing: ``auto`` reads a pair's prompt once and several pairs in one row, where the
            backbone allows it and it saves time; the losses are the same. ``off`` never does.
        disable_dropout: take the base model's dropout out, as TRL does for reward models; LoRA's
            own is a setting of ``lora``.
        seed: of row draws, order, new heads and dropout; each process drops out for itself.
        deterministic: refuse operations whose result may differ from run to run on the same
            machine (``torch.use_deterministic_algorithms``); slower on an accelerator.
    """

    renamed: ClassVar[dict[str, str]] = {"keep": "select"}
    aliases: ClassVar[dict[str, str]] = TRAINING_ALIASES | {
        "max_len": "data.max_length", "max_length": "data.max_length", "lora_rank": "lora.rank",
        "lora_r": "lora.rank", "lora_alpha": "lora.alpha", "dataset": "data.sources",
        "load_in_4bit": "quantize.kind=nf4", "load_in_8bit": "quantize.kind=int8",
    }

    base_model: str
    head: HeadConfig = HeadConfig()
    policy: str | None = None
    data: DataConfig | None = None
    prepared: str | None = None
    phases: list[PhaseConfig] = Field(min_length=1)
    rounds: int = Field(1, ge=1)
    last_phase: str | None = None
    select: Literal["last", "best"] = "last"
    optimiser: OptimiserConfig = OptimiserConfig()
    log: LogConfig = LogConfig()
    trainer: TrainerFields = Field(default_factory=dict)
    callbacks: Callbacks = Field(default_factory=list)
    lora: LoraSettings | None = None
    quantize: QuantizeSettings | None = None
    attn_implementation: str | None = None
    padding_side: Literal["right", "left"] = "right"
    packing: Packing = "auto"
    disable_dropout: bool = True
    seed: Seed = 0
    deterministic: bool = False

    @field_validator("phases")
    @classmethod
    def _distinct(cls, phases: list[PhaseConfig]) -> list[PhaseConfig]:
        names = [phase.name for phase in phases]
        if len(set(names)) != len(names):
            raise ValueError(f"phases of a round must differ in their objectives, got {names}")
        return phases

    @field_validator("attn_implementation")
    @classmethod
    def _long_name(cls, name: str | None) -> str | None:
        return {"flash": "flash_attention_2", "flex": "flex_attention"}.get(name or "", name)

    @model_validator(mode="after")
    def _complete(self) -> "TrainConfig":
        if self.quantize is not None and self.lora is None:
            raise ValueError("quantize freezes the backbone, so it needs lora, for example lora={}")
        if self.data is None and self.prepared is None:
            raise ValueError("give data (what to prepare) or prepared (a folder of prepared data)")
        evaluate, save = self.log.eval_steps, self.log.save_steps
        if self.select == "best" and evaluate and save and save % evaluate:
            raise ValueError(
                f"select=best needs log.save_steps to be a multiple of log.eval_steps, got {save} "
                f"and {evaluate}"
            )
        names = [phase.name for phase in self.phases]
        if self.last_phase is not None and self.last_phase not in names:
            raise ValueError(f"last_phase must be one of {names}, got {self.last_phase!r}")
        return self

    def plan(self) -> list[PhaseConfig]:
        """All phases in the order in which they run."""
        phases = list(self.phases) * self.rounds
        if self.last_phase is not None:
            while phases[-1].name != self.last_phase:
                phases.pop()
        return phases
