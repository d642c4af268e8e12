"""``rewardsteer score --benchmark``: scores of a benchmark's rows, without its figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardsteer.cli.kind import check_kind
from rewardsteer.cli.starting import check_reward_model, check_writable, counted, loading, say
from rewardsteer.cli.streams import is_standard_output, place_name, writable

if TYPE_CHECKING:
    from rewardsteer.data.template import Template


def score_benchmark(
    benchmark: str, output: Path, reward_model: str | Path, *, device: str, dtype: str | None,
    kind: str | None, options: Mapping[str, Any], template: "Template | None", resume: bool,
    overwrite: bool, others: Mapping[str, object],
) -> None:
    """Write the file that ``rewardsteer evaluate benchmark --scores`` reads: ``id`` and ``scores``
    of each item, one JSON line per item.

    Args:
        benchmark: NAME or NAME=PATH.
        output: the file; ``-``: standard output.
        reward_model, device, dtype, kind, options, template: the reward model and its options.
        resume: continue from the scores in the file.
        overwrite: replace the file.
        others: values of options that do not apply here and must be absent.

    Raises:
        ConfigError, DataError, OutputError: a wrong name, file or option.
    """
    from rewardsteer.errors import ConfigError, OutputError
    from rewardsteer.evaluation.reward_benchmarks import REWARD_BENCHMARKS
    from rewardsteer.evaluation.shards import check_output

    name, _, place = benchmark.partition("=")
    REWARD_BENCHMARKS.check(name)
    given = [option for option, value in others.items() if value]
    if given:
        raise ConfigError(
            f"The rows of a benchmark are scored whole by the engine transformers; leave out "
            f"{', '.join(given)}."
        )
    if output.suffix != ".jsonl" and not is_standard_output(output):
        raise OutputError(f"Scores of a benchmark are JSON lines; end {output} in .jsonl.")
    check_kind(kind)
    check_reward_model(reward_model)
    check_output(output, resume=resume, overwrite=overwrite)
    check_writable(output)
    loading(reward_model, name)

    from rewardsteer.devices import parse_dtype
    from rewardsteer.evaluation.reward_benchmarks.loading import load_benchmark
    from rewardsteer.evaluation.reward_benchmarks.run import notes_of, score_items
    from rewardsteer.models.kinds import load_scorer
    from rewardsteer.progress import progress_bar

    asked, items = load_benchmark(name, place or None)
    scorer = load_scorer(
        reward_model, kind=kind, device=device, dtype=parse_dtype(dtype), template=template,
        pairs=True, **options,
    )
    if overwrite and not resume:
        output.unlink(missing_ok=True)
    with writable(output) as file, progress_bar(name, "items") as announce:
        scored = score_items(scorer, asked, items, file=file, announce=announce)
    say(f"scores of {counted(len(scored.items), 'item')} written to {place_name(output)}")
    for note in notes_of(scored):
        say(note)
