"""Whatever the Hub does, a training ends with its weights on disk, and `clm push` makes the repository equal to it."""

import json

import pytest
from comparison import assert_equal
from support.hub_server import Fault, reset, stall

COMMIT, PUT = "POST .*/commit/", "PUT /_objects/"

FAULTS = {
    **{f"{status} at the commit": Fault(COMMIT, status) for status in (401, 403, 404, 409, 412, 500, 503, 507)},
    "429 with Retry-After": Fault(COMMIT, 429, {"Retry-After": "1"}),
    "no space for the large files": Fault("lfs/objects/batch", 507),
    "403 for the large files": Fault(PUT, 403),
    "all but the first requests is forbidden": Fault(" /(?!api/whoami|api/repos/create)", 403),
    "a reset at the commit": Fault(COMMIT, act=reset),
    "a stall at the commit": Fault(COMMIT, act=stall),
}
"""Those that last until the server is well again."""


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_lasts_costs_nothing(clm, hub, training, tmp_path, name):
    run = tmp_path / "run"
    hub.faults = [FAULTS[name]]
    assert clm(*training) == 3
    weights = (run / "model.safetensors").read_bytes()
    assert clm.out.splitlines()[-1].strip() == "clm push run"
    assert json.loads((run / "results.json").read_text())["hub"]["state"] == "failed"
    hub.faults.clear()
    assert clm("push", "run") == 0
    assert_equal(hub, run)
    assert hub.files("jane/run")["model.safetensors"] == weights
