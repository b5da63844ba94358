"""Finds the fields of a configuration that a class ignores, by changing one after the other.

    python tests/architectures/fields.py measure FOLDER          what each change does here, into FOLDER
    python tests/architectures/fields.py measure FOLDER gpt2     the same for these types alone
    python tests/architectures/fields.py write FOLDER            ignored_fields.json, from what was measured

A tiny model of each type is given the same weights again and again, and asked for the logits of the same text, as clm
runs it and with eager attention. `nox -s fields` does all of it, on both series of transformers.
"""

import argparse
import concurrent.futures as futures
import json
import multiprocessing
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.backend import Model

LIMIT = 300
"""Seconds for one type, on all backends; most take two."""

AS_IT_IS, EAGER = "as it is", "eager"
DEVIATION = 0.3
"""Of the weights: large enough that every field shows."""


def main(argv: list[str] | None = None) -> None:
    """Measure, or write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "write"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("model_types", nargs="*")
    given = parser.parse_args(argv)
    if given.what == "write":
        from ignored import write

        write(given.folder)
        return
    from sweep import mapped

    folder = given.folder / series()
    folder.mkdir(parents=True, exist_ok=True)
    for model_type, line in measure_all(given.model_types or mapped(), given.folder):
        print(f"{model_type:24} {line}", flush=True)


def series() -> str:
    """The series of transformers that is here."""
    major = metadata.version("transformers").split(".")[0]
    return "4.57" if major == "4" else major


def measure_all(model_types: list[str], folder: Path) -> Iterator[tuple[str, str]]:
    """A line for each type; one that crashes or hangs costs its own result and a new process."""
    executor = _executor()
    for model_type in model_types:
        try:
            yield model_type, executor.submit(_into_file, model_type, folder).result(LIMIT)
        except (futures.BrokenExecutor, futures.TimeoutError) as error:
            yield model_type, f"crashed or hung: {type(error).__name__}"
            for process in list((executor._processes or {}).values()):
                process.kill()
            executor.shutdown(wait=False, cancel_futures=True)
            executor = _executor()
    executor.shutdown()


def _executor() -> futures.ProcessPoolExecutor:
    return futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_silence)


def _silence() -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, sys.stdout.fileno())
    os.dup2(quiet, sys.stderr.fileno())


def _into_file(model_type: str, folder: Path) -> str:
    from changes import default

    others = [path for path in folder.glob(f"*/{model_type}.json") if path.parent.name != series()]
    more = {}
    for other in others:
        for field, found in json.loads(other.read_text(encoding="utf-8")).items():
            more[tuple(field.split("."))] = found["tried"]
    tried, logits = measure(model_type, more)
    fields = {".".join(path): {"tried": values, **default(model_type, path)} for path, values in tried.items()}
    (folder / series() / f"{model_type}.json").write_text(json.dumps(fields), encoding="utf-8")
    np.savez(folder / series() / f"{model_type}.npz", **logits)
    return f"{len(tried)} fields, {len(logits)} models" if logits else "cannot be made"


def measure(model_type: str, more: dict[tuple[str, ...], list[Any]]) -> tuple[dict[Any, list[Any]], dict[str, Any]]:
    """The values tried of each field, and the logits by `side|field|place of the value`; `side||` is of no change."""
    from changes import changes, configuration

    sides = _sides(model_type)
    bases = {f"{side}||": _asked(ask, configuration, model_type) for side, ask in sides.items()}
    logits = {side: found for side, found in bases.items() if found is not None}
    tried = changes(model_type, more) if logits else {}
    for path, values in tried.items():
        moved = False
        for place, value in enumerate(values):
            if moved and value is not None:  # One value that shows is enough, and what there is without a value.
                continue
            for side, ask in sides.items():
                # TensorFlow is the slowest, and is asked only about what has a part in the logits of a reference.
                if f"{side}||" not in logits or (side.startswith("tf") and not moved and path not in more):
                    continue
                found = _asked(ask, configuration, model_type, path, value)
                if found is not None:
                    logits[f"{side}|{'.'.join(path)}|{place}"] = found
                    moved = moved or _differ(found, logits[f"{side}||"])
    return tried, logits


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape != other.shape or bool(np.abs(one - other).max() > 1e-4 * np.abs(other).max())


def _asked(ask: Callable[[Any], np.ndarray], configuration: Any, *change: Any) -> np.ndarray | None:
    """Logits, or None where there is no such model, whatever a library may raise."""
    try:
        found = ask(configuration(*change))
    except Exception:
        return None
    return found if np.isfinite(found).all() else None


def _sides(model_type: str) -> dict[str, Callable[[Any], np.ndarray]]:
    from frameworks import installed

    backends = installed()
    sides: dict[str, Callable[[Any], np.ndarray]] = {}
    if "pt" in backends:
        sides = {f"pt {attention}": _pt(attention) for attention in (AS_IT_IS, EAGER)}
    if "tf" in backends and model_type in backends["tf"].model_types:
        sides[f"tf {AS_IT_IS}"] = _tf
    return sides


def _pt(attention: str) -> Callable[[Any], np.ndarray]:
    import torch

    from clm_core.models.causality import make_causal
    from clm_pt import modeling
    from clm_pt.repairs import repair

    torch.set_num_threads(1)

    def ask(config: Any) -> np.ndarray:
        make_causal(config)
        if attention == EAGER:
            config._attn_implementation = EAGER
        torch.manual_seed(0)
        model = modeling._from_config(config)
        repair(model)
        return logits_of(model)

    return ask


def logits_of(model: Any) -> np.ndarray:
    """Of the text, float32, once a PyTorch model has the weights that every model has here."""
    import torch

    with torch.no_grad():
        for name, parameter in model.eval().named_parameters():
            parameter.copy_(torch.from_numpy(weight(name, tuple(parameter.shape))))
        torch.manual_seed(0)  # For attention that hashes at random.
        ids = torch.from_numpy(text())
        found: np.ndarray = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().numpy()
    return found


def new(architecture: Any) -> Model:
    """A model from scratch."""
    return Model(name_or_path=None, revision="main", architecture=architecture, seed=0)


def _tf(config: Any) -> np.ndarray:
    from clm_core.models.causality import make_causal
    from clm_tf import modeling, weights

    make_causal(config)
    model = modeling._build(new(config))
    weights.set_all(model, lambda name, own: weight(name, own.shape))
    return model(text(), training=False, return_dict=True).logits.numpy()


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight that every series and framework has under a name: float32, about 1 for norms and about 0 else."""
    numbers = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    return DEVIATION * numbers + (1.0 if len(shape) == 1 and name.endswith("weight") else 0.0)


def text() -> np.ndarray:
    """Token ids of shape (2, 16), longer than the tiny windows, and without the ids that stand for padding."""
    return np.random.default_rng(0).integers(6, 60, (2, 16))


if __name__ == "__main__":
    main()
