"""What is taken over or used of transformers' Trainer exists in the oldest version admitted.

A method that a version does not have is taken over in vain: nobody calls it, and no error says so.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAINING = ROOT / "src" / "rewardsteer" / "training"
OLDEST = "5.4"
# Of transformers.Trainer. Before a name is added: does transformers 5.4.0 have it?
# `make test-lowest` runs the tests of training on that version.
KNOWN = {
    "_get_grad_norm", "_get_output_dir", "_globalstep_last_logged", "_load_best_model",
    "_load_from_checkpoint", "_prepare_inputs", "_save", "_save_checkpoint",
    "_save_optimizer_and_scheduler", "_total_loss_scalar", "_tr_loss", "compute_loss", "evaluate",
    "evaluation_loop", "get_batch_samples", "get_eval_dataloader", "get_train_dataloader", "log",
    "prediction_step", "save_model", "training_step",
}


def classes_of_trainers(texts: list[str]) -> list[ast.ClassDef]:
    """Classes derived from Trainer, also by way of each other."""
    every = [one for text in texts for one in ast.walk(ast.parse(text))
             if isinstance(one, ast.ClassDef)]
    known, found = {"Trainer"}, []
    while more := [one for one in every if one not in found
                   and known & {ast.unparse(base) for base in one.bases}]:
        found += more
        known |= {one.name for one in more}
    return found


def used(classes: list[ast.ClassDef]) -> set[str]:
    """The Trainer's names that the classes use: what they call of `super()`, and private ones that
    are neither a method of theirs nor set when they are made."""
    names: set[tuple[str, str]] = set()
    methods = [one for cls in classes for one in cls.body if isinstance(one, ast.FunctionDef)]
    own = {one.name for one in methods}
    for method in methods:
        for node in ast.walk(method):
            if not isinstance(node, ast.Attribute):
                continue
            holder, private = ast.unparse(node.value), node.attr.startswith("_")
            if holder == "super()" or (holder == "self" and private):
                if isinstance(node.ctx, ast.Store) and method.name == "__init__":
                    own.add(node.attr)
                else:
                    names.add((holder, node.attr))
    return {name for holder, name in names if holder == "super()" or name not in own} - {"__init__"}


def overridden(classes: list[ast.ClassDef]) -> set[str]:
    """Methods that the installed Trainer has too."""
    from transformers import Trainer

    return {one.name for cls in classes for one in cls.body if isinstance(one, ast.FunctionDef)
            and hasattr(Trainer, one.name)} - {"__init__"}


def test_the_list_is_of_the_oldest_version():
    assert re.search(rf'"transformers>={re.escape(OLDEST)}"', (ROOT / "pyproject.toml").read_text())


def test_the_trainer_is_used_as_its_oldest_version_has_it():
    classes = classes_of_trainers([path.read_text() for path in TRAINING.rglob("*.py")])
    assert {one.name for one in classes} == {"CheckpointingTrainer", "RewardTrainer"}
    assert used(classes) | overridden(classes) == KNOWN


def test_other_names_are_found():
    text = """
class A(Trainer):
    def __init__(self):
        super().__init__()
        self._own = self._mine()
    def _mine(self): return self._sums + super()._total()
class B(A):
    def training_step(self): return self._own
"""
    classes = classes_of_trainers([text])
    assert [one.name for one in classes] == ["A", "B"]
    assert used(classes) == {"_sums", "_total"}
    assert overridden(classes) == {"training_step"}
