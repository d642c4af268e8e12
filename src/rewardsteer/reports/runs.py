"""A page from result folders. It reads result files only and loads no model.

Each section answers one question for all runs, so curves of several runs share a plot.
"""

from collections.abc import Sequence
from pathlib import Path

from rewardsteer.reports.agreement import agreement_section
from rewardsteer.reports.benchmarks import benchmark_section
from rewardsteer.reports.comparison import comparison_section, samples_section
from rewardsteer.reports.correctness import correctness_section
from rewardsteer.reports.inspector import inspector
from rewardsteer.reports.over_runs import over_runs_section
from rewardsteer.reports.overoptimization import overoptimization_section
from rewardsteer.reports.overview import overview
from rewardsteer.reports.page import write_page
from rewardsteer.reports.preference import preference_section
from rewardsteer.reports.results import Run, flat
from rewardsteer.reports.sections import Block, Prose, Section, Settings
from rewardsteer.reports.sources import Sources, load_runs
from rewardsteer.reports.training import training_section


def write_runs_page(runs: Sequence[Path], out: Path) -> None:
    """Write a page of all results in the folders, side by side.

    Args:
        runs: folders of training runs, evaluations and inspections, folders that contain them, or
            files of figures over several runs.

    Raises:
        DataError: a folder without results, or a damaged file.
    """
    sources = Sources()
    found = load_runs(runs, sources)
    sections = [
        overview(found),
        training_section({run.name: run.training for run in found if run.training}),
        preference_section({run.name: run.preference for run in found if run.preference}),
        correctness_section({run.name: run.correctness for run in found if run.correctness}),
        benchmark_section({run.name: run.benchmarks for run in found if run.benchmarks}),
        agreement_section({run.name: run.agreement for run in found if run.agreement}),
        over_runs_section(found),
        comparison_section(found),
        overoptimization_section({
            run.name: run.overoptimization for run in found if run.overoptimization
        }),
        inspection_section(found),
        samples_section(found),
        sources_section(found, sources),
    ]
    names = ", ".join(run.name for run in found)
    one = "1 run" if len(found) == 1 else f"{len(found)} runs compared"
    write_page(
        out, "Reward model report", f"{one}: {names}.",
        [section for section in sections if section is not None],
        footer=f"Made from {len(sources.digests)} file{'s' * (len(sources.digests) != 1)}, "
        f"fingerprint {sources.fingerprint}.",
    )


def inspection_section(runs: Sequence[Run]) -> Section | None:
    """The token inspector with all runs' inspections; None without any."""
    records = [
        record if len(runs) == 1 else record.model_copy(
            update={"label": f"{run.name}: {record.label or record.id}"}
        )
        for run in runs for record in run.inspections
    ]
    if not records:
        return None
    return Section("Token by token", "tokens", [
        Prose(INSPECTOR), inspector(records),
        *(
            Settings(flat(run.inspections[0].settings), f"How {run.name} was inspected")
            for run in runs if run.inspections and run.inspections[0].settings
        ),
    ])


INSPECTOR = (
    "Each token is coloured by its reward, the change of the reward, its similarity to the goal "
    "state, or the share of probability that guidance moved. The columns show the tokens that the "
    "policy, the reward model and both together prefer at that position."
)


def sources_section(runs: Sequence[Run], sources: Sources) -> Section:
    """Settings of the runs, and the files that the page was made from."""
    blocks: list[Block] = [
        Settings(flat(run.settings), run.name) for run in runs if run.settings
    ]
    blocks.append(Settings(sources.digests, "Files read, with the first digits of their SHA-256"))
    return Section("Settings", "settings", [
        Prose(f"Fingerprint of all files behind this page: {sources.fingerprint}."), *blocks,
    ])
