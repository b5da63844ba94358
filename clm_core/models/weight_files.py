"""The weight files of a model: found in a folder or on the Hub, read tensor by tensor, or missed with one wording."""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.backend import Model
from clm_core.errors import ModelError
from clm_core.models.stored_file import fetch

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
CONVERTED = ("tf_model.h5", "tf_model.h5.index.json", "flax_model.msgpack")
"""Weights in the layout of other frameworks."""
OTHER_LAYOUTS = ("tf", "flax")
"""What safetensors files of such weights say that they are for."""

POINTER = b"version https://git-lfs"
"""How a file begins in a clone that was made without Git LFS."""

NEEDED = f"it needs {WEIGHTS}, as save_pretrained writes it in PyTorch"

OF_NUMPY = {"BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4"}
OF_NUMPY |= {"U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
"""The types of numbers that NumPy has, by their names in safetensors."""

SHOWN = 5
"""Tensors that an error names."""

SAMPLED = 1024
"""Bytes of a tensor that tell it from another."""


class StoredWeights:
    """The tensors of weight files by name, each read when it is asked for.

    Raises:
        ModelError: a file is damaged; so does reading a tensor.
    """

    def __init__(self, model: Model, files: Sequence[Path]) -> None:
        self.layout: str | None = None
        """The framework that the files say they are for; most of PyTorch's layout say "pt"."""
        self.types: dict[str, str] = {}
        """What safetensors calls the type of each tensor's numbers: "F32", "BF16"."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._model = model
        self._written: dict[str, tuple[int, ...]] = {}
        """The shapes in the files, where `shapes` has what they are to be."""
        self._grown: set[str] = set()
        self._where: dict[str, tuple[Path, int]] = {}
        """The file of each tensor, and where its bytes begin in it."""
        for file in files:
            with _readable(model, file):
                self._add(file)

    @classmethod
    def of(cls, model: Model) -> "StoredWeights":
        """Those of a model in a folder or on the Hub, in PyTorch's layout.

        Raises:
            ModelError: it has none that can be read.
        """
        files = find(model)
        if not files:
            raise absent(model)
        stored = cls(model, files)
        if stored.layout in OTHER_LAYOUTS:
            raise _converted(model, files[0].name)
        return stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    @property
    def rows(self) -> int | None:
        """How many token embeddings the files have, where `grow` has added some."""
        return next((self._written[name][0] for name in self._grown), None)

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def find(self, name: str, prefix: str) -> str:
        """What a tensor is called in the files: they may have the names of the bare model, with or without a prefix."""
        other = name.removeprefix(prefix) if name.startswith(prefix) else prefix + name
        return other if name not in self and other in self else name

    def grow(self, shapes: Mapping[str, tuple[int, ...]], prefix: str) -> list[str]:
        """Have the tensors of a vocabulary be as long as a model needs them, which has these names and shapes.

        Returns their names, as in `shapes`. Their new rows are the mean of those in the file.
        """
        rows, grown = self._model.vocabulary, []
        for name, wanted in shapes.items():
            found = self.find(name, prefix)
            own = self.shapes.get(found, ())
            if own and wanted and wanted[0] == rows and own[0] < rows and own[1:] == wanted[1:]:
                self._grown.add(found)
                self.shapes[found] = wanted
                grown.append(name)
        return grown

    def get_tensor(self, name: str) -> npt.NDArray[Any]:
        """A tensor, of the type that it has in the file; bfloat16, which NumPy does not have, as float32."""
        own = self._read(name)
        return grown(own, self.shapes[name][0]) if name in self._grown else own

    def as_written(self, name: str) -> npt.NDArray[Any]:
        """The same, and never grown."""
        return self._read(name)

    def sample(self) -> bytes:
        """The beginning of each tensor as it is in the files, which says which model this is without reading it all."""
        found = bytearray()
        for name in sorted(self):
            (file, start), count = self._where[name], math.prod(self._written[name])
            with _readable(self._model, file), file.open("rb") as content:
                content.seek(start)
                found += f"{name} {self.types[name]} {self._written[name]}".encode()
                found += content.read(min(count, SAMPLED))  # A number has a byte at least.
        return bytes(found)

    def _read(self, name: str) -> npt.NDArray[Any]:
        (file, start), kind = self._where[name], self.types[name]
        with _readable(self._model, file):
            if kind != "BF16" and kind not in OF_NUMPY:
                raise ValueError(f"{name} has type {kind}, as in a quantized model")
            shape, half = self._written[name], kind == "BF16"
            found = _read(file, start, "<u2" if half else OF_NUMPY[kind], math.prod(shape))
            # A bfloat16 is the upper half of a float32.
            return ((found.astype(np.uint32) << 16).view(np.float32) if half else found).reshape(shape)

    def _add(self, file: Path) -> None:
        from safetensors import safe_open

        opened: Any = safe_open(file, framework="np")
        self.layout = self.layout or (opened.metadata() or {}).get("format")
        for name, entry in entries(file).items():
            self.types[name], self.shapes[name] = entry.kind, entry.shape
            self._written[name] = entry.shape
            self._where[name] = file, entry.start


def grown(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """An array with as many rows, float32: the new ones are the mean of those that it has, computed in float64."""
    mean = array.mean(axis=0, dtype=np.float64).astype(np.float32)
    return np.concatenate([array.astype(np.float32), np.broadcast_to(mean, (rows - len(array), *mean.shape))])


@dataclass(frozen=True)
class Entry:
    """A tensor in a safetensors file, as its header describes it."""

    kind: str
    """What safetensors calls the type of its numbers."""
    shape: tuple[int, ...]
    start: int
    """Where its bytes begin in the file."""


def entries(file: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file by name, from its header alone.

    Raises:
        SafetensorError: the header is damaged, or does not fit the file.
        OSError: it cannot be read.
    """
    from safetensors import safe_open

    opened: Any = safe_open(file, framework="np")  # It checks the whole header.
    with file.open("rb") as plain:
        size = int.from_bytes(plain.read(8), "little")
        header = json.loads(plain.read(size))
    described = ((name, header[name]) for name in opened.keys())  # noqa: SIM118  (it is no mapping)
    return {
        name: Entry(tensor["dtype"], tuple(tensor["shape"]), 8 + size + tensor["data_offsets"][0])
        for name, tensor in described
    }


def find(model: Model) -> list[Path]:
    """The weight files of PyTorch's layout in a folder or on the Hub, downloaded; none if there are only others.

    Raises:
        ModelError: the Hub cannot be reached, or the index is damaged or names files that are not there.
    """
    if single := _fetch(model, WEIGHTS):
        return [single]
    index = _fetch(model, INDEX)
    if index is None:
        return []
    with _readable(model, index):
        shards = _shards(json.loads(index.read_text(encoding="utf-8")))
    found = {shard: _fetch(model, shard) for shard in shards}
    if lost := [shard for shard, path in found.items() if path is None]:
        raise ModelError(f"{model.name_or_path}: {INDEX} names files that do not exist: {', '.join(lost)}")
    return [path for path in found.values() if path]


def absent(model: Model) -> ModelError:
    """Why `find` found nothing. Pickles are looked for, and neither read nor downloaded: they can run any code."""
    if file := _first_of(model, PICKLED):
        return ModelError(
            f"{model.name_or_path} has only pickled weights ({file}), which clm does not load, as they can run code: "
            f"{NEEDED}"
        )
    if file := _first_of(model, CONVERTED):
        return _converted(model, file)
    or_away = "" if Path(str(model.name_or_path)).is_dir() else ", or it cannot be reached"
    return ModelError(f"there is no {WEIGHTS} in {model.name_or_path}{or_away}")


def check_whole(model: Model, lost: Collection[str]) -> None:
    """Make sure that the files of a model have all of its tensors.

    `lost` are those of which they have none, or none of the right shape.

    Raises:
        ModelError: there are any; the first are named.
    """
    if lost:
        raise ModelError(
            f"the weights of {model.name_or_path} lack {len(lost)} of the model's tensors, or have them in another "
            f"shape: {', '.join(sorted(lost)[:SHOWN])}{', ...' * (len(lost) > SHOWN)}{of_overrides(model)}"
        )


def of_overrides(model: Model) -> str:
    """The end of an error about weights that do not fit, which a field that was changed may be the reason for."""
    fields = ", ".join(model.overridden)
    return f"; config_overrides changes {fields}: leave out what the weights are not made for" if fields else ""


def _fetch(model: Model, filename: str) -> Path | None:
    return fetch(str(model.name_or_path), model.revision, filename)


def _shards(index: Any) -> list[str]:
    """The files that an index names.

    Raises:
        ValueError: it is none.
    """
    where = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(where, dict):
        raise ValueError("it has no weight_map, which says in which file each tensor is")
    return sorted(set(map(str, where.values())))


def _converted(model: Model, file: str) -> ModelError:
    return ModelError(f"{model.name_or_path} has its weights only in another framework's layout ({file}): {NEEDED}")


def _first_of(model: Model, files: Sequence[str]) -> str | None:
    """The first of these files that a folder or a repository has; none is downloaded."""
    from transformers.utils import has_file

    for file in files:
        try:
            if has_file(model.name_or_path, file, revision=model.revision):
                return file
        except (OSError, ValueError) as error:
            raise ModelError(f"{model.name_or_path}: cannot check for {file}: {error}") from error
    return None


@contextmanager
def _readable(model: Model, file: Path) -> Iterator[None]:
    """Say which file cannot be read, and why."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        reason = "it is a pointer of Git LFS: `git lfs pull` fetches the file itself" if _is_pointer(file) else error
        raise ModelError(f"the weights of {model.name_or_path} cannot be read: {file.name}: {reason}") from error


def _is_pointer(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(len(POINTER)) == POINTER


def _read(file: Path, start: int, kind: str, count: int) -> npt.NDArray[Any]:
    """Numbers of a file, read, because the pages of a memory map would count as memory of the process."""
    found: npt.NDArray[Any] = np.fromfile(file, kind, count=count, offset=start)
    if found.size != count:
        raise OSError("it ends before its last tensor")
    return found
