"""Weights that are not finite are found before they count as a checkpoint or a model."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from clm_core.errors import TrainingError
from clm_core.models import finite
from clm_core.models.finite import check_finite

KINDS = [np.float64, np.float32, np.float16]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [(0, 0), (3, 4), (6, 6)])
def test_one_such_weight_is_named_with_its_place(tmp_path, monkeypatch, kind, value, place):
    monkeypatch.setattr(finite, "PART", 16)
    weights = np.ones((7, 7), kind)
    weights[place] = value
    save_file({"a": np.ones(3, kind), "h.0.weight": weights}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(
        TrainingError, match=rf"weight h\.0\.weight has the value {value} at \[{place[0]}, {place[1]}\]"
    ):
        check_finite(tmp_path)


@pytest.mark.parametrize(("upper", "value"), [(0x7F80, "inf"), (0xFF80, "-inf"), (0x7FC0, "nan")])
def test_bfloat16_is_looked_at_as_well(tmp_path, upper, value):
    bits = np.full((2, 3), 0x3F80, np.uint16)
    write_bfloat16(tmp_path, bits)
    check_finite(tmp_path)
    bits[1, 2] = upper
    write_bfloat16(tmp_path, bits)
    with pytest.raises(TrainingError, match=rf"weight w has the value {value} at \[1, 2\]"):
        check_finite(tmp_path)


def write_bfloat16(folder, bits):
    header = b'{"w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}'
    header += b" " * (-len(header) % 8)
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bits.tobytes())


def test_the_largest_numbers_whole_numbers_and_empty_tensors_are_finite(tmp_path):
    largest = {kind.__name__: np.array([np.finfo(kind).max, np.finfo(kind).min], kind) for kind in KINDS}
    whole = {"counts": np.full(3, np.iinfo(np.int64).max), "empty": np.zeros((0, 4), np.float32)}
    save_file({**largest, **whole, "scalar": np.array(1.0)}, tmp_path / "model.safetensors")
    save_file({"m.a": np.array([np.inf])}, tmp_path / "optimizer.safetensors")
    check_finite(tmp_path)


def test_a_folder_without_safetensors_has_nothing_to_look_at(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"nan")
    check_finite(tmp_path)
