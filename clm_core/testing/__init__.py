"""The suite that a backend's author runs: subclass `BackendContract`, name the backend, and let pytest collect it.

    from clm_core.testing import BackendContract

    class TestMyBackend(BackendContract):
        backend = MyBackend()

It needs pytest and transformers, and no network. The models are tiny GPT-2s: a backend has to have that architecture,
whichever others it has. A test that cannot hold for a backend, by what it declares as `unsupported` or `incomparable`,
is not in its suite.

There are 18 trainings, of up to 32 steps, and some 20 scores and texts. Each comes as a separate job, with a
model that is loaded again. A framework that compiles should keep what it has compiled from one job to the next, by the
configuration and the shapes that it is for; where it can be kept between processes too, as by JAX with
JAX_COMPILATION_CACHE_DIR, the second run of the suite takes seconds.
"""

from pathlib import Path

import pytest

from clm_core.lazy import lazy_names

_HOMES = {
    "BackendContract": "contract",
    "CORE_OPTIONS": "probes",
    "MEMORY_OPTIONS": "probes",
    "MODEL_OPTIONS": "probes",
    "SAMPLING_PROBES": "probes",
    "SCHEDULED": "probes",
    "TRAINING_PROBES": "probes",
    "Changes": "probes",
    "BLOCK_SIZE": "tiny",
    "TRAINING_BLOCKS": "tiny",
    "VALIDATION_BLOCKS": "tiny",
    "VOCABULARY": "tiny",
    "tiny_gpt2": "tiny",
    "tiny_model": "tiny",
    "training_blocks": "tiny",
    "training_job": "tiny",
    "validation_blocks": "tiny",
    "Trace": "trace",
    "evaluate": "trace",
    "generate": "trace",
    "logits": "trace",
    "losses": "trace",
    "run": "trace",
}

# Before they are imported, so that a failure shows what differed, in an installed clm too.
pytest.register_assert_rewrite(*(f"{__name__}.{file.stem}" for file in sorted(Path(__file__).parent.glob("[!_]*.py"))))

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
