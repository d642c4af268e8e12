"""Copy the numbers of an `evaluate generation` folder without its texts, small enough to keep.

    python runs/keep_figures.py FOLDER OUT

OUT has the same layout, so `rewardsteer evaluate runs` accepts it. Answers keep their costs and
metrics; a digest replaces the prompt, and completions and tokens are left out. Of paths, the last
two parts are kept.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

from rewardsteer.evaluation.record_files import finished_summary, records_by_method
from rewardsteer.outputs import file_name, write_json, write_text


def keep(folder: Path, out: Path) -> None:
    """Write the copy of ``folder`` without texts to ``out``."""
    summary = finished_summary(folder)
    out.mkdir(parents=True, exist_ok=True)
    for label, records in records_by_method(folder, summary).items():
        lines = []
        for record in records:
            digest = hashlib.sha256(record.generation.prompt.encode()).hexdigest()[:16]
            bare = record.generation.model_copy(
                update={"prompt": digest, "completion": "", "token_ids": []}
            )
            kept = record.model_copy(update={"generation": bare})
            lines.append(kept.model_dump_json(exclude_defaults=True))
        write_text(out / file_name(label), "".join(f"{line}\n" for line in lines))
    write_json(out / "summary.json", _without_places(summary))


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    if isinstance(value, str) and value.startswith("/"):
        return "/".join(Path(value).parts[-2:])
    return value


if __name__ == "__main__":
    keep(Path(sys.argv[1]), Path(sys.argv[2]))
