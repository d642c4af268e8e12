"""Fuzz one target or all with atheris: `python -m fuzz [TARGET …] [--runs N] [--seconds S]`.

Coverage of this package guides the search. What is found is printed with its bytes, which belong
into tests/fuzz/corpus.py once the code is mended.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Each target in a process of its own: the fuzzer ends the one it runs in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        _fuzz(options.targets[0], options.runs, options.seconds, options.seed)
    from fuzz.targets import TARGETS

    failed = []
    for name in options.targets or TARGETS:
        if name not in TARGETS:
            sys.exit(f"Unknown target {name}; known: {', '.join(TARGETS)}.")
        limits = {"runs": options.runs, "seconds": options.seconds, "seed": options.seed}
        command = [sys.executable, "-m", "fuzz", name, "--here"]
        command += [f"--{limit}={value}" for limit, value in limits.items()]
        if subprocess.run(command).returncode:  # noqa: S603
            failed.append(name)
    sys.exit(f"Found something: {', '.join(failed)}" if failed else 0)


def _fuzz(name: str, runs: int, seconds: int, seed: int) -> None:
    import logging

    import atheris

    with atheris.instrument_imports(include=["rewardsteer"]):
        from fuzz.targets import TARGETS, seeds

    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(seeds(name)):
            (Path(folder) / str(number)).write_bytes(content)
        limits = [f"-runs={runs}", f"-max_total_time={seconds}", f"-seed={seed}", "-timeout=60"]
        atheris.Setup([sys.argv[0], *limits, "-artifact_prefix=/tmp/", folder], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
