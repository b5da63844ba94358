"""Tensor files are those of safetensors, byte for byte, and no more than one array is needed to write them."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import load_file, save_file

from clm_core.durable.tensors import OnDemand, write_tensors

KINDS = st.sampled_from([np.float32, np.int64])
ARRAYS = KINDS.flatmap(lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))


@given(st.dictionaries(st.text(min_size=1, max_size=6), ARRAYS, max_size=5), st.booleans())
def test_a_file_has_the_bytes_that_safetensors_would_write(tmp_path_factory, tensors, described):
    folder, metadata = tmp_path_factory.mktemp("files"), {"format": "pt"} if described else None
    save_file(tensors, folder / "theirs", metadata)
    write_tensors(folder / "ours", tensors, metadata)
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()


def test_an_array_that_lies_otherwise_in_memory_is_written_row_by_row(tmp_path):
    array = np.arange(12, dtype=">f4").reshape(3, 4).T
    write_tensors(tmp_path / "w", {"w": array})
    np.testing.assert_array_equal(load_file(tmp_path / "w")["w"], array)


def test_one_array_at_a_time_is_in_memory(tmp_path):
    size = 1 << 20
    tensors = OnDemand({f"h.{i}": lambda i=i: np.full(size, i, np.float32) for i in range(16)})
    tracemalloc.start()
    write_tensors(tmp_path / "w", tensors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * 4 * size
    assert [load_file(tmp_path / "w")[name][0] for name in tensors] == list(range(16))


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.complex64])
def test_what_the_header_has_no_name_for_here_is_refused(tmp_path, kind):
    with pytest.raises(ValueError, match=f"an array of {np.dtype(kind)} is neither of floats nor"):
        write_tensors(tmp_path / "w", {"w": np.zeros(3, kind)})
    assert list(tmp_path.iterdir()) == []
