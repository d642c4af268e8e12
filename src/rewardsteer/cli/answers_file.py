"""The output file of ``rewardsteer generate``, and the resuming of a run from it."""

from pathlib import Path
from typing import Any


def refuse_taken(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise `OutputError` if the output is a folder, not JSONL, or exists without a flag for
    that."""
    from rewardsteer.errors import OutputError

    if output.suffix in (".csv", ".tsv", ".parquet", ".gz", ".json"):
        raise OutputError(f"The output {output} is written as JSON lines; end its name in .jsonl.")
    if output.is_dir():
        raise OutputError(f"The output {output} is a folder, expected a file name for JSONL.")
    if output.exists() and not (resume or overwrite):
        raise OutputError(
            f"The output {output} exists; choose another, or pass --resume to go on with it or "
            "--overwrite to replace it."
        )


def settings_file(output: Path) -> Path:
    """Path of the file with a run's settings, beside its output."""
    return output.with_name(output.name + ".settings.json")


def answered(output: Path, settings: dict[str, Any]) -> set[str]:
    """Ids of the answered rows in the output, after an incomplete last line and the lines of failed
    rows are removed from it.

    Raises:
        ConfigError: the output was begun with other settings; names them.
        DataError: a line is not a generation.
    """
    from rewardsteer.errors import ConfigError, DataError
    from rewardsteer.faults import checked
    from rewardsteer.outputs import read_json, read_jsonl, repair_jsonl, write_text
    from rewardsteer.records import Generation

    if settings_file(output).exists():
        before = read_json(settings_file(output))
        # The batch size does not change the generated text.
        names = sorted((before.keys() | settings.keys()) - {"batch_size"})
        changed = [name for name in names if before.get(name) != settings.get(name)]
        if changed:
            told = ", ".join(f"{k} ({before.get(k)!r} → {settings.get(k)!r})" for k in changed)
            raise ConfigError(
                f"{output} was begun with other settings: {told}; resume with the same ones, or "
                "choose another output."
            )
    if not output.exists():
        return set()
    repair_jsonl(output)
    done, lines, failed = set(), [], 0
    for number, row in read_jsonl(output):
        try:
            result = checked(Generation, row)
            if result.error is None:
                done.add(result.id)
                lines.append(result.model_dump_json())
            else:
                failed += 1
        except ValueError as error:
            raise DataError(
                f"{output}, line {number}: no generation ({error}); --resume needs a file that "
                "'rewardsteer generate' wrote."
            ) from error
    if failed:
        write_text(output, "".join(f"{line}\n" for line in lines))
    return done
