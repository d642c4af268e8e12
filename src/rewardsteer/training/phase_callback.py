"""When a phase of training evaluates and saves, and which epoch it reads."""

from typing import Any

from transformers import TrainerCallback


class PhaseCallback(TrainerCallback):
    """Decides when to evaluate and to save at the ends of epochs and of the phase.

    Evaluation runs with an epoch's last update, not after it as in the library, so that a
    checkpoint of that update includes it and a resumed run does not repeat it.

    Args:
        trainer: a `rewardsteer.training.trainer.RewardTrainer`.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Continue the sums of an interrupted log interval."""
        self.trainer.restore_progress()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the batches which epoch begins, also where the rest of an interrupted one does:
        libraries do not pass that on to batches that are shared among processes and skipped."""
        self.trainer.order.epoch = int(state.epoch or 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Check the update, and ask for evaluation and saving where they are due."""
        self.trainer.end_update()
        last = state.global_step >= state.max_steps
        if float(state.epoch).is_integer() or last:
            if args.eval_strategy == "epoch" and args.eval_delay <= state.epoch:
                control.should_evaluate = True
            if args.save_strategy == "epoch":
                control.should_save = True
        if last and not args.load_best_model_at_end:
            # The caller writes the weights of a finished phase.
            control.should_save = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Skip the library's own evaluation and saving; both came with the epoch's last update."""
        if args.eval_strategy == "epoch":
            control.should_evaluate = False
        if args.save_strategy == "epoch":
            control.should_save = False
