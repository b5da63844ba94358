"""Options that do not go together are rejected before anything is prepared or written, whichever backend has them."""

from importlib.util import find_spec

import pytest

import clm_core as clm
from clm_core import inputs
from clm_core.backend import World
from clm_core.errors import OptionError
from clm_core.registry import get_backend

FRAMEWORKS = {"pt": "torch", "tf": "tf_keras", "keras": "keras"}
TWO = {"nproc_per_node": "2"}
SIZES = "hidden_size=8,num_hidden_layers=2,num_attention_heads=2"
OPT = {"model_type": "opt", "config_overrides": f"{SIZES},ffn_dim=8,word_embed_proj_dim=8,layerdrop=0.1"}
MIXTURE = f"{SIZES},num_key_value_heads=1,head_dim=4,intermediate_size=8,num_local_experts=2,output_router_logits=true"

APART = [
    ("pt", {"dtype": "bfloat16", **TWO}, "dtype bfloat16: DistributedDataParallel"),
    ("pt", {"pt": {"guide": True, "fsdp": True}}, "pt guide and pt fsdp"),
    ("pt", {"pt": {"guide": True}, **TWO}, "pt guide: the guide trains in one process, and there are 2"),
    ("pt", {"pt": {"guide": True}, "optim": "muon"}, "pt guide and optim muon"),
    ("pt", {"pt": {"fsdp": True}, **OPT}, r"type opt cannot be cut up by FSDP2: layerdrop 0\.1"),
    ("tf", {"tf": {"jit_compile": True}, **TWO}, "tf jit_compile: XLA"),
    ("tf", {"tf": {"guide": True}}, "tf guide: .* give --tf-decay-all"),
    ("tf", {"tf": {"guide": True}, **TWO}, "tf guide: the guide trains on one device"),
    ("keras", {"keras": {"jit_compile": True}, **TWO}, "keras jit_compile: XLA"),
    (
        "keras",
        {"model_type": "mixtral", "config_overrides": MIXTURE, **TWO},
        "output_router_logits .* one device",
    ),
]


class PreparedError(Exception):
    """Data was to be prepared."""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains on the sample, where data is to be prepared in vain."""

    def refuse(*args, **kwargs):
        raise PreparedError

    def begin(backend, **options):
        if find_spec(FRAMEWORKS[backend]) is None:
            pytest.skip(f"{FRAMEWORKS[backend]} is not installed")
        if backend != "pt":  # TensorFlow cuts its CPU up only once in a process.
            world = World(size=2, local=2) if "nproc_per_node" in options else World()
            monkeypatch.setattr(type(get_backend(backend)), "world", lambda self, asked: world)
        clm.train(backend=backend, config="sample", output_dir=tmp_path / "run", max_steps=1, **options)

    monkeypatch.setenv("CLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(inputs, "prepare_data", refuse)
    return begin


@pytest.mark.parametrize(("backend", "options", "why"), APART)
def test_what_does_not_go_together_is_rejected_before_anything_is_prepared(backend, options, why, train, tmp_path):
    with pytest.raises(OptionError, match=why):
        train(backend, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_what_goes_together_is_prepared(backend, train):
    with pytest.raises(PreparedError):
        train(backend)
