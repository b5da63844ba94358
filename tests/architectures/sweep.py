"""Probes every architecture that transformers maps, and writes what was found.

    python tests/architectures/sweep.py FILE.json            all of them
    python tests/architectures/sweep.py FILE.json gpt2 bert  these, into what the file has already

Several are probed in one process, because its imports take longer than a probe; one that crashes or hangs costs its
own result and a new process.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LIMIT = 300
"""Seconds for one architecture, on all backends; most take three."""


def main(argv: list[str] | None = None) -> None:
    """Probe, and write the file after each architecture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("model_types", nargs="*")
    given = parser.parse_args(argv)
    every = mapped()
    if unknown := set(given.model_types) - set(every):
        parser.error(f"transformers maps no {', '.join(sorted(unknown))} to a causal language model")
    chosen = given.model_types or every
    kept = json.loads(given.file.read_text())["found"] if given.model_types and given.file.exists() else {}
    for model_type, findings in probe_all(chosen):
        kept[model_type] = findings
        found = {name: kept[name] for name in every if name in kept}
        given.file.write_text(_as_json(found), encoding="utf-8")
        print(f"{model_type:24}", *(f"{name}: {_short(finding)}" for name, finding in findings.items()), flush=True)


def mapped() -> list[str]:
    """The model types that transformers maps to a causal language model, on either framework."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as names

    return sorted(names)


def versions() -> dict[str, str]:
    """The distributions whose versions matter, as they are here."""
    names = {"transformers": "transformers", "torch": "torch", "tensorflow": "tensorflow", "keras": "keras"}
    return {name: metadata.version(name) for name, module in names.items() if find_spec(module)}


def probe_all(model_types: list[str], limit: float = LIMIT) -> Iterator[tuple[str, dict[str, Any]]]:
    """The findings for each model type, by backend, as `Finding` has them."""
    worker = Worker()
    for model_type in model_types:
        try:
            yield model_type, worker.ask(model_type, limit)
        except (EOFError, TimeoutError) as error:
            how = f"no answer in {limit:g} s" if isinstance(error, TimeoutError) else f"crashed ({worker.exit_code()})"
            yield model_type, {"pt": {"done": [], "failed": "trains", "reason": how, "difference": None}}
            worker.end()
            worker = Worker()
    worker.end()


class Worker:
    """A process that probes one architecture after the other."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._here, there = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(there,), daemon=True)
        self._process.start()
        there.close()

    def ask(self, model_type: str, limit: float) -> Any:
        """What the process finds.

        Raises:
            EOFError: it died.
            TimeoutError: it took longer than `limit` seconds.
        """
        self._here.send(model_type)
        if not self._here.poll(limit):
            raise TimeoutError
        return self._here.recv()

    def exit_code(self) -> int | None:
        """Of a process that died; negative, it is the number of a signal."""
        self._process.join(5)
        return self._process.exitcode

    def end(self) -> None:
        """Stop the process, whatever it does."""
        self._process.kill()
        self._process.join()


def _work(there: Connection) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stdout.fileno())
    os.dup2(silence, sys.stderr.fileno())
    from frameworks import counterpart, installed
    from probe import probe

    probed = installed()
    if "pt" in probed:
        import torch

        torch.set_num_threads(1)  # Matrices of this size are computed before other threads wake up.
    while True:
        model_type = there.recv()
        with tempfile.TemporaryDirectory() as folder:
            findings = {
                name: probe(model_type, one, Path(folder, name), counterpart(name, model_type, probed))
                for name, one in probed.items()
                if model_type in one.model_types
            }
        there.send({name: asdict(finding) for name, finding in findings.items()})


def _as_json(found: dict[str, Any]) -> str:
    """An architecture to a line, so that what changes is seen in a diff."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(findings)}" for name, findings in found.items())
    return f'{{"versions": {json.dumps(versions())}, "found": {{\n{lines}\n}}}}\n'


def _short(finding: dict[str, Any]) -> str:
    apart = "" if finding["difference"] is None else f", {finding['difference']:.1e} apart"
    return (f"{finding['failed']} fails: {finding['reason'][:150]}" if finding["failed"] else "all good") + apart


if __name__ == "__main__":
    main()
