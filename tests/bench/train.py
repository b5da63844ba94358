"""Times training steps of a new DistilGPT2: the guide's script, a bare loop, and clm, each in a process of its own.

    nox -s bench -- train --backends pt keras --shapes 8x128 4x512 --precisions fp32 bf16 --rounds 5

A shape is blocks x tokens in a step. Each process computes with one thread, and its seconds are those of its CPU, which
other programs on the machine do not change much; where there is a GPU, it computes, the seconds are a clock's and the
memory is the GPU's. The first step is left out, on a GPU the first twenty. Each way runs once a round, in turn, and
the table has medians over steps, on a GPU means, and then medians over rounds; memory is the most of all rounds, in the
steps and over all.
The share of the limit is that of the seconds that the machine's fastest products of such numbers would take. `start` is
what comes before the first step, with what that takes more than a later one; `evaluation` scores the blocks of a step;
`save` writes a checkpoint (the guide's TensorFlow tab writes the model alone). Ratios are those of the steps. With the
precision `dtype`, which only clm has, the weights are bfloat16. `--add-to docs/gpu.md` adds the table to a page.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import ways

STEPS = {"cpu": 5, "gpu": 60}
SETTLED = {"cpu": 1, "gpu": 20}
"""After how many steps the others are timed."""

WAYS = {"pt": ("guide", "bare", "clm"), "tf": ("guide", "clm"), "keras": ("clm",)}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}


def main() -> None:
    """Run every way in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--shapes", nargs="+", default=["8x128", "4x512"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16", "dtype"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--add-to", type=Path, metavar="PAGE")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(*given.child)))
        return
    machine = Machine(**ask("machine", "pt", "1x1", "fp32", "cpu"))
    rates = {precision: ask("rate", "pt", "1x1", precision, machine.kind)["rate"] for precision in given.precisions}
    cases = [
        (backend, way, shape, precision)
        for backend in given.backends
        for shape in given.shapes
        for precision in given.precisions
        for way in WAYS[backend]
        if precision != "dtype" or (way == "clm" and backend != "tf")
    ]
    found = {case: [] for case in cases}
    for _ in range(given.rounds):
        for backend, way, shape, precision in cases:
            found[backend, way, shape, precision].append(ask(way, backend, shape, precision, machine.kind))
    lines = "\n".join([*heading(machine, rates, given.rounds), *table(found, rates, machine)])
    print(lines)
    if given.add_to:
        with given.add_to.open("a", encoding="utf-8") as page:
            page.write(f"\n{lines}\n")


@dataclass(frozen=True)
class Machine:
    """What computes: a `cpu` or a `gpu`, and what runs it."""

    kind: str
    name: str
    versions: dict[str, str]

    @property
    def unit(self) -> str:
        """Of the seconds."""
        return "s" if self.kind == "gpu" else "CPU s"


def heading(machine: Machine, rates: dict[str, float], rounds: int) -> list[str]:
    """What the table is of."""
    products = " and ".join(f"{rate / 1e9:,.0f} GFLOP/s in {precision}" for precision, rate in rates.items())
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return [
        "## Training of a new DistilGPT2\n",
        f"On {machine.name}, whose products reach {products}, with {versions}; medians of {rounds} rounds.\n",
    ]


def table(found: dict, rates: dict[str, float], machine: Machine) -> list[str]:
    """A row for each way."""
    lines = [
        f"| step | precision | backend | way | {machine.unit} | x guide | % of the limit | MB in steps | MB | start "
        "| evaluation | save |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (backend, way, shape, precision), rounds in found.items():
        seconds = statistics.median(each["step"] for each in rounds)
        guide = found.get((backend, "guide", shape, precision))
        ratio = f"{statistics.median(each['step'] for each in guide) / seconds:.2f}" if guide else "-"
        limit = 100 * flops(shape) / rates[precision] / seconds
        in_steps, over_all = (max(each[name] for each in rounds) for name in ("in_steps", "peak"))
        others = " | ".join(_median([each[name] for each in rounds]) for name in ("start", "evaluation", "save"))
        lines.append(
            f"| {shape} | {precision} | {backend} | {way} | {seconds:.3g} | {ratio} | {limit:.0f} | {in_steps:,.0f} "
            f"| {over_all:,.0f} | {others} |"
        )
    return lines


def _median(seconds: list) -> str:
    known = [each for each in seconds if each is not None]
    return f"{statistics.median(known):.3g}" if known else "-"


def flops(shape: str) -> float:
    """Of a step: 6 for each parameter and token but for positions, and the products within attention."""
    blocks, length = map(int, shape.split("x"))
    layers, width, vocabulary = 6, 768, 50_257
    parameters = 12 * layers * width**2 + vocabulary * width
    return 6.0 * parameters * blocks * length + 12.0 * layers * width * length * blocks * length


def ask(way: str, backend: str, shape: str, precision: str, kind: str) -> dict:
    """What a process finds that does one thing."""
    command = [sys.executable, __file__, "--child", way, backend, shape, precision, kind]
    environment = {**os.environ, **ONE_THREAD, **QUIET}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{way}, {backend}, {shape}, {precision}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def child(way: str, backend: str, shape: str, precision: str, kind: str) -> dict:
    """What the machine is, the rate of its products, or the seconds and the peak of memory of a few steps."""
    if way == "machine":
        return asdict(machine())
    if way == "rate":
        return {"rate": rate(precision, kind)}
    mark = mark_of_cpu if kind == "cpu" else partial(mark_of_gpu, backend)
    blocks, length = map(int, shape.split("x"))
    marks: list[tuple[str, float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        run = ways.of(way, backend)
        run(
            ways.new_blocks(blocks * STEPS[kind], length),
            blocks,
            precision,
            Path(folder),
            lambda name="step": marks.append((name, *mark())),
        )
    steps = [(seconds, peak) for name, seconds, peak in marks if name == "step"]
    timed = [after - before for (before, _), (after, _) in itertools.pairwise(steps[SETTLED[kind] - 1 :])]
    step = statistics.median(timed) if kind == "cpu" else statistics.mean(timed)  # Some wait for a GPU, and others not.
    evaluation, save = (_last(marks, name) for name in ("evaluation", "save"))
    before = evaluation or 0.0 if marks[0][0] == "evaluation" else 0.0
    return {
        "step": step,
        "start": steps[0][0] - step - before,
        "evaluation": evaluation,
        "save": save,
        "in_steps": steps[-1][1],
        "peak": mark()[1],
    }


def _last(marks: list[tuple[str, float, int]], wanted: str) -> float | None:
    """The seconds of the last thing of a name, from what came before it."""
    pairs = [(before, after) for before, after in itertools.pairwise(marks) if after[0] == wanted]
    return pairs[-1][1][1] - pairs[-1][0][1] if pairs else None


def mark_of_cpu() -> tuple[float, int]:
    """CPU seconds and the peak of memory in MB until now."""
    from clm_core.runs.memory import peak_memory

    return time.process_time(), (peak_memory() or 0) // 1_000_000


def mark_of_gpu(backend: str) -> tuple[float, int]:
    """Seconds, and the peak of the GPU's memory in MB until now."""
    if backend == "pt":
        from clm_pt.memory import peak_of_accelerator
    else:
        from clm_tf.devices import peak_of_accelerator
    return time.monotonic(), (peak_of_accelerator() or 0) // 1_000_000


def machine() -> Machine:
    """What PyTorch computes on here."""
    import platform

    import torch
    import transformers

    kind = "gpu" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if kind == "gpu" else f"one core of {platform.processor() or 'a CPU'}"
    versions = {"Python": platform.python_version(), "torch": torch.__version__}
    return Machine(kind, name, versions | {"transformers": transformers.__version__})


def rate(precision: str, kind: str) -> float:
    """Floating point operations a second of the fastest exact product that PyTorch has here; of a CPU, on one core."""
    import torch

    clock, size, device = (time.monotonic, 8192, "cuda") if kind == "gpu" else (time.thread_time, 2048, "cpu")
    wait = torch.cuda.synchronize if kind == "gpu" else lambda: None
    one = (torch.rand(size, size) - 0.5).to(device, torch.float32 if precision == "fp32" else torch.bfloat16)
    found = []
    for setting in ("highest", "medium") if kind == "cpu" else ("highest",):  # On a GPU, others are not exact.
        torch.set_float32_matmul_precision(setting)
        for _ in range(8):
            wait()
            started = clock()
            one @ one
            wait()
            found.append(clock() - started)
    return 2.0 * size**3 / min(found)


if __name__ == "__main__":
    main()
