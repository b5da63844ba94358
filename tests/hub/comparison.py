"""Whether a repository and a run, or what `fit` saved, are equal."""

import json


def assert_equal(hub, run, repo="jane/run"):
    """The repository has what the run has, byte for byte; of the run's own record, what is not about this machine."""
    published = hub.files(repo)
    own = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert {path for path in published if "/" not in path} == own.keys()
    assert {name for name in own if own[name] != published[name]} <= {"run.yaml", "results.json"}
    record, shared = json.loads(own["results.json"]), json.loads(published["results.json"])
    assert shared.items() <= record.items()
    assert {"history", "ledger", "versions"} <= shared.keys()


def assert_same_files(hub, folder, repo):
    """The repository has the files of the folder and no others."""
    own = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert hub.files(repo) == own
    assert own["model.safetensors"]
