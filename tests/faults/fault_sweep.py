"""The whole sweep of faults on the backends named, or on those installed, as a table: `nox -s faults`; takes hours.

`python tests/faults/fault_sweep.py pt --modes 'kill;SIGTERM' --every 5` does a part of it.
"""

import argparse
import importlib.util
import shutil
import sys
import tempfile
import time
from pathlib import Path

import cases
import damages
from short_runs import Laboratory, laboratory, serving

ALL = {**cases.ALL, "damage, interrupted": damages.of_interrupted, "damage, finished": damages.of_finished}
NEEDS = {"bigram": "clm_bigram", "pt": "torch", "tf": "tf_keras", "keras": "keras"}
HEAD = ("| backend | what | points | right | not right | minutes |", "| --- | --- | --- | --- | --- | --- |")


def main() -> int:
    """Do the cases, and say of each that does not end well what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backends", nargs="*", default=installed())
    parser.add_argument("--modes", type=lambda text: text.split(";"), default=list(ALL))
    parser.add_argument("--every", type=int, default=1, help="only one case of so many")
    parser.add_argument("--graphs", action="store_true", help="compiled graphs in place of eager TensorFlow")
    given = parser.parse_args()
    rows, failed = list(HEAD), 0
    for backend in given.backends:
        with tempfile.TemporaryDirectory() as folder, serving([backend], Path(folder)) as server:
            lab = laboratory(backend, Path(folder), server, eager=not given.graphs)
            for mode in given.modes:
                started = time.monotonic()
                right, wrong = _swept(lab, mode, given.every)
                minutes = (time.monotonic() - started) / 60
                rows.append(f"| {backend} | {mode} | {right + wrong} | {right} | {wrong} | {minutes:.1f} |")
                print(rows[-1], flush=True)
                failed += wrong
    print("\n".join(["", *rows]))
    return 1 if failed else 0


def installed() -> list[str]:
    """The backends that can be tried here."""
    return [name for name, module in NEEDS.items() if importlib.util.find_spec(module)]


def _swept(lab: Laboratory, mode: str, every: int) -> tuple[int, int]:
    counts = [0, 0]
    chosen = list(ALL[mode](lab))[::every]
    for number, case in enumerate(chosen):
        print(f"{lab.backend}, {mode}: {number} of {len(chosen)} done", file=sys.stderr)
        wrong = case.check()
        counts[bool(wrong)] += 1
        if wrong:
            print(f"{lab.backend}, {case.name}: {'; '.join(wrong)}", flush=True)
        _forget(lab)
    return counts[0], counts[1]


def _forget(lab: Laboratory) -> None:
    """Remove the folders of cases that no other one starts from."""
    kept = [value for value in lab.made.values() if isinstance(value, Path)]
    for folder in lab.folder.glob("case-*"):
        if folder not in kept:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
