"""A safetensors file, written tensor by tensor: safetensors' own writers take all of a file's tensors at once."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clm_core.durable.hashing import hashed_while_written

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class OnDemand(Mapping[str, Array]):
    """Arrays that are made each time they are asked for, so that no more than one of them need be in memory."""

    makers: Mapping[str, Callable[[], Array]]

    def __getitem__(self, name: str) -> Array:
        return self.makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


def write_tensors(file: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays of floats and signed whole numbers; each is asked for twice: for its shape, and to be written.

    Of float32 and int64, the file is that of `safetensors.numpy.save_file`, byte for byte.

    The format: https://huggingface.co/docs/safetensors/index#format

    Raises:
        ValueError: an array is of another type.
    """
    described = {name: _Described.of(tensors[name]) for name in tensors}
    # The widest numbers first: so each begins at a multiple of its size, where it can be read in place.
    order = sorted(described, key=lambda name: (-described[name].type.itemsize, name))
    header = _header({name: described[name] for name in order}, metadata)
    with hashed_while_written(file) as out:
        out.write(len(header).to_bytes(8, "little") + header)
        for name in order:
            out.write(bytes_of(tensors[name]))


def bytes_of(array: Array) -> memoryview:
    """The bytes of an array as they are in a file: row by row, little-endian."""
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C").reshape(-1).view(np.uint8).data


@dataclass(frozen=True)
class _Described:
    """What a header says of an array."""

    type: np.dtype[Any]
    shape: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, array: Array) -> "_Described":
        if array.dtype.kind not in "fi":
            raise ValueError(f"an array of {array.dtype} is neither of floats nor of signed whole numbers")
        return cls(array.dtype, array.shape, array.nbytes)

    def entry(self, start: int) -> dict[str, Any]:
        kind = f"{'F' if self.type.kind == 'f' else 'I'}{8 * self.type.itemsize}"
        return {"dtype": kind, "shape": self.shape, "data_offsets": [start, start + self.size]}


def _header(described: Mapping[str, _Described], metadata: Mapping[str, str] | None) -> bytes:
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, each in described.items():
        entries[name] = each.entry(start)
        start += each.size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)
