"""The type of the weights: what the files of a model say, and backends that have none but float32."""

import json

import numpy as np
import pytest
from clm_bigram import BigramBackend

from clm_core.config import EvaluateConfig, GenerateConfig
from clm_core.errors import OptionError
from clm_core.inputs import with_dtype
from clm_core.models.types_in_files import dtype_in_files
from clm_core.options import from_arguments
from clm_core.options.resolve import evaluation, generation, parity, training
from clm_core.screen.progress import Progress
from clm_core.testing.tiny import first_weights, tiny_gpt2, write_model

BYTES = {"BF16": 2, "F16": 2, "F32": 4}


@pytest.fixture
def stored(tmp_path):
    """Makes a model of whose tensors these have these types in the file, and all others another one."""

    def write(other, **types):
        model = write_model(tmp_path / "model", tiny_gpt2(), first_weights(tiny_gpt2(), seed=1))
        shapes = {name: array.shape for name, array in first_weights(tiny_gpt2(), seed=1).items()}
        header, at = {}, 0
        for name, shape in shapes.items():
            kind = next((types[part] for part in types if part in name), other)
            end = at + int(np.prod(shape)) * BYTES[kind]
            header[name], at = {"dtype": kind, "shape": shape, "data_offsets": [at, end]}, end
        text = json.dumps(header).encode()
        content = len(text).to_bytes(8, "little") + text + bytes(at)
        (tmp_path / "model" / "model.safetensors").write_bytes(content)
        return model

    return write


@pytest.mark.parametrize(
    ("other", "types", "expected"),
    [
        ("F32", {}, "float32"),
        ("F16", {}, "float32"),
        ("BF16", {}, "bfloat16"),
        ("BF16", {"ln_": "F32"}, "bfloat16"),
        ("F32", {"wte": "BF16"}, "float32"),
    ],
)
def test_what_most_numbers_are_in_the_files_is_what_auto_means(stored, other, types, expected):
    model, said = stored(other, **types), Progress()
    assert dtype_in_files(model) == expected
    for config in (EvaluateConfig(dtype="auto"), GenerateConfig(dtype="auto")):
        assert with_dtype(config, model, said).dtype == expected


def test_a_type_that_is_given_is_taken_whatever_the_files_have(stored):
    assert with_dtype(EvaluateConfig(dtype="float32"), stored("BF16"), Progress()).dtype == "float32"


@pytest.mark.parametrize(
    ("resolved", "value"),
    [(training, "bfloat16"), (evaluation, "bfloat16"), (evaluation, "auto"), (generation, "auto")],
)
def test_a_backend_that_says_nothing_has_float32_weights(resolved, value):
    with pytest.raises(OptionError, match=f"backend bigram does not support dtype {value}: its weights are float32"):
        resolved(from_arguments({"dtype": value}), file=None, backend=BigramBackend())
    assert resolved(from_arguments({"dtype": "float32"}), file=None, backend=BigramBackend()).config.dtype == "float32"


def test_it_is_refused_before_anything_is_written(train_refused):
    assert "does not support dtype bfloat16: its weights are float32 (--dtype)" in train_refused("--dtype", "bfloat16")


@pytest.mark.parametrize(
    ("line", "without", "way"),
    [
        ("dtype: bfloat16", {"dtype": "float32"}, "--dtype float32"),
        ("gradient_checkpointing: true", {"gradient_checkpointing": False}, "--no-gradient-checkpointing"),
    ],
)
def test_what_a_run_has_and_a_backend_lacks_is_not_dropped_without_a_word(train, tmp_path, line, without, way):
    train(output_dir="run")
    with (tmp_path / "run" / "run.yaml").open("a") as file:
        file.write(f"{line}\n")
    resumed = {"resume_from_checkpoint": "run"}
    with pytest.raises(OptionError, match=rf"does not support .*; to resume without it: {way}"):
        training(from_arguments(resumed), file=None, backend=BigramBackend())
    assert training(from_arguments({**resumed, **without}), file=None, backend=BigramBackend())


def test_the_tensorflow_classes_name_the_backends_that_have_it():
    backend = pytest.importorskip("clm_tf.backend").TensorFlowBackend()
    with pytest.raises(OptionError, match=r"backend tf does not support dtype: .* --backend keras or pt has it"):
        training(from_arguments({"dtype": "bfloat16"}), file=None, backend=backend)
    sides = {"backends": ["pt", "tf"], "python": {"pt": "python", "tf": "python"}}
    with pytest.raises(OptionError, match="backend tf does not support dtype"):
        parity(from_arguments({**sides, "dtype": "bfloat16"}), file=None)


@pytest.mark.parametrize(("value", "says"), [("auto", "it is for evaluate and generate"), ("float16", "give bfloat16")])
def test_a_training_is_told_the_type_and_it_is_one_with_the_range_of_float32(value, says):
    with pytest.raises(OptionError, match=says):
        training(from_arguments({"dtype": value}), file=None, backend=BigramBackend())
