"""What the tests of publishing share: a Hub on the loopback, and clm in a process of its own that knows no other."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hub_server import TOKEN, HubServer

needed = {"test_keras_callback.py": ["tensorflow"], "test_back_from_the_hub.py": ["torch", "tensorflow"]}
collect_ignore = [name for name, frameworks in needed.items() if not any(map(find_spec, frameworks))]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DOCUMENTS = [f"Why is sky number {number} so blue? Because light scatters {number * 7} times." for number in range(60)]


@pytest.fixture
def hub():
    server = HubServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def nothing_holds_the_token(request, tmp_path):
    """Whatever a test has written, printed or uploaded is searched for the token."""
    server = request.getfixturevalue("hub") if "hub" in request.fixturenames else None
    yield
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    written.pop(tmp_path / "home" / "token", None)  # Where `hf auth login` keeps it.
    for repo in server.repos.values() if server else ():
        for commit, files in repo.commits.items():
            written |= {f"{commit} {path}": content for path, content in files.items()}
    assert [place for place, content in written.items() if TOKEN.encode() in content] == []
    assert [place for place, content in written.items() if b"X-Amz-Signature" in content] == []


@pytest.fixture
def environment(hub, tmp_path):
    """A home of its own, where nobody but this test has logged in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "CLM_"))}
    own = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "CLM_CACHE": str(tmp_path / "cache"),
        "CLM_HUB_RETRIES": "1",
        "CLM_HUB_WAIT": "0.01",
        "CLM_HUB_TIMEOUT": "2",
        "CLM_BACKEND": "bigram",
        # The toy backend needs no framework, which transformers would import.
        "USE_TF": "0",
        "USE_TORCH": "0",
        "PYTHONPATH": str(ROOT),
    }
    return {**kept, **own}


class Clm:
    """Commands of clm in a process of their own."""

    def __init__(self, folder, environment):
        self.errors = folder / "printed.txt"
        with self.errors.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "worker.py"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )

    def start(self, *argv):
        """Begin a command."""
        self.process.stdin.write(json.dumps([str(argument) for argument in argv]) + "\n")
        self.process.stdin.flush()

    def wait(self):
        """The exit code of the command that was begun."""
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        answer = json.loads(line)
        self.out = answer["out"]
        with self.errors.with_name("printed-out.txt").open("a") as file:
            file.write(self.out)
        return answer["code"]

    def __call__(self, *argv):
        self.start(*argv)
        return self.wait()

    @property
    def err(self):
        """All that was printed for the person so far."""
        return self.errors.read_text()

    def close(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def new_clm(tmp_path):
    """Start a process for commands, in an environment."""
    started = []

    def start(environment):
        started.append(Clm(tmp_path, environment))
        return started[-1]

    yield start
    for commands in started:
        commands.close()


@pytest.fixture
def clm(new_clm, environment):
    return new_clm(environment)


@pytest.fixture
def training(tmp_path):
    """A training of the toy backend that publishes: 18 steps in a tenth of a second."""
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    small = ["--block-size", "16", "--per-device-train-batch-size", "4", "--max-steps", "18"]
    small += ["--validation-split-percentage", "0"]  # Without metrics, which take seconds to import.
    model = ["--model-type", "gpt2", "--tokenizer-name", "sample", "--train-file", "corpus.jsonl"]
    return ["train", *model, *small, "--output-dir", "run", "--push-to-hub"]
