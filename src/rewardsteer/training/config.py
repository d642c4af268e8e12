"""Settings of training. No torch here."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rewardsteer.configuration import Config
from rewardsteer.data.config import DataConfig
from rewardsteer.models.heads.config import HeadConfig


class OptimiserConfig(Config):
    """How weights are updated; the names are those of `transformers.TrainingArguments`.

    Attributes:
        learning_rate: peak learning rate.
        batch_size: comparisons a device reads at once.
        order: ``random``, or ``length``: pairs of similar length stand in one batch, which leaves
            little padding. Batches are shuffled anew each epoch either way.
        batch_tokens: a training batch holds, instead of ``batch_size`` comparisons, as many of
            similar length as fit into so many tokens, padding and both responses included; a longer
            comparison stands alone. Implies ``order=length``; evaluation keeps ``batch_size``.
        accumulation: batches summed up before an update.
        epochs: passes over the rows of a phase.
        max_steps: updates per phase; overrides ``epochs`` when positive.
        scheduler: learning-rate schedule, restarted in each phase.
        warmup: updates of warm-up when ≥ 1, a share of all updates when below 1.
        weight_decay: AdamW's.
        betas: AdamW's.
        max_grad_norm: gradients are clipped to this norm.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        activation_offload: keep activations in the computer's memory between forward and backward
            pass instead of the accelerator's; needs trl.
    """

    learning_rate: float = 5e-6
    batch_size: int = Field(8, ge=1)
    order: Literal["random", "length"] = "random"
    batch_tokens: int | None = Field(None, ge=1)
    accumulation: int = Field(1, ge=1)
    epochs: float = Field(1.0, gt=0)
    max_steps: int = -1
    scheduler: str = "linear"
    warmup: float = Field(0.0, ge=0)
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    activation_offload: bool = False


class LogConfig(Config):
    """What is written while training runs.

    Attributes:
        log_steps: updates between log lines.
        eval_steps: updates between evaluations on the test split; 0 evaluates after each phase.
        save_steps: updates between checkpoints to resume from; 0 saves after each phase only.
        eval_rows: at most this many test rows are used.
        report_to: trackers known to transformers: tensorboard, wandb, trackio, mlflow.
        progress: show progress bars.
        echo: print log lines where there is no progress bar; they are in metrics.jsonl anyway.
        spike: an update is logged as a spike (``loss_spike``, with its rows in the program's log)
            when its loss lies so many times their spread above the median of the last 50; None
            watches for none.
    """

    log_steps: int = Field(10, ge=1)
    eval_steps: int = Field(0, ge=0)
    save_steps: int = Field(0, ge=0)
    eval_rows: int = Field(512, ge=1)
    report_to: list[str] = Field(default_factory=list)
    progress: bool = True
    echo: bool = True
    spike: float | None = Field(8.0, gt=0)


class TermConfig(Config):
    """One term of a phase's loss."""

    name: str
    weight: float = 1.0
    options: dict[str, Any] = Field(default_factory=dict)


class PhaseConfig(Config):
    """Training on one loss with a fresh optimiser and schedule.

    Attributes:
        objective: terms added up on the same batch.
        rows: rows drawn at random for this phase, each time it comes round; None takes all.
        learning_rate: overrides the optimiser's for this phase.
    """

    objective: list[TermConfig] = Field(min_length=1)
    rows: int | None = Field(None, ge=1)
    learning_rate: float | None = None

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

    rank: int = Field(16, ge=1)
    alpha: int = 32
    dropout: float = 0.0
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
    """A reward model's training, whole.

    Attributes:
        base_model: folder or hub name of a causal language model.
        head: the head to put on it.
        data: what to prepare; not needed when ``prepared`` is given.
        prepared: a folder made by ``rewardsteer data prepare``.
        phases: the phases of one round, in order.
        rounds: how often the phases come round (FaRMA's alternation, arXiv 2502.04517).
        last_phase: name of the phase with which the last round ends; None runs the round whole.
        keep: which weights become the final model: the ``last``, or the ``best`` on the test
            split's accuracy, among the ends of phases named like the last one and, with
            ``log.eval_steps`` and ``log.save_steps``, among the checkpoints within a phase.
        optimiser: see `OptimiserConfig`.
        log: see `LogConfig`.
        lora: adapters instead of full weights; None trains all weights.
        quantize: round the frozen backbone; needs ``lora``. The final model is a plain one: the
            rounded weights with the adapters merged in.
        attn_implementation: ``sdpa``, ``eager``, ``flash`` (flash-attn 2), ``flex``, or any name
            that transformers knows (``flash_attention_3``, …); None: automatic.
        padding_side: side on which training batches are padded.
        packing: ``auto`` reads a pair's prompt once and several pairs in one row, where the
            backbone allows it and it saves time; the losses are the same. ``off`` never does.
        seed: of row draws, order, new heads and dropout; each process drops out for itself.
        deterministic: refuse operations whose result may differ from run to run on the same
            machine (``torch.use_deterministic_algorithms``); slower on an accelerator.
    """

    base_model: str
    head: HeadConfig = HeadConfig()
    data: DataConfig | None = None
    prepared: str | None = None
    phases: list[PhaseConfig] = Field(min_length=1)
    rounds: int = Field(1, ge=1)
    last_phase: str | None = None
    keep: Literal["last", "best"] = "last"
    optimiser: OptimiserConfig = OptimiserConfig()
    log: LogConfig = LogConfig()
    lora: LoraSettings | None = None
    quantize: QuantizeSettings | None = None
    attn_implementation: str | None = None
    padding_side: Literal["right", "left"] = "right"
    packing: Literal["auto", "off"] = "auto"
    seed: int = 0
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
        if self.keep == "best" and evaluate and save and save % evaluate:
            raise ValueError(
                f"keep=best needs log.save_steps to be a multiple of log.eval_steps, got {save} "
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
