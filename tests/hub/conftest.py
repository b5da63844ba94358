"""What the tests of publishing share: a Hub on the loopback, and clm in processes that know no other."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.hub_server import TOKEN, HubServer

needed = {
    "test_keras_callback.py": ["tf_keras"],
    "test_keras3_callback.py": ["tensorflow"],
    "test_back_from_the_hub.py": ["torch", "tensorflow"],
}
collect_ignore = [name for name, frameworks in needed.items() if not any(map(find_spec, frameworks))]

TESTS = Path(__file__).parents[1]
DOCUMENTS = [f"Why is sky number {number} so blue? Because light scatters {number * 7} times." for number in range(60)]


@pytest.fixture(scope="session")
def server():
    server = HubServer()
    yield server
    server.close()


@pytest.fixture
def hub(server):
    """A Hub that knows nothing; its address stays, since huggingface_hub reads it when it is imported."""
    server.forget()
    server.open()
    return server


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """The folder that huggingface_hub calls home, where nobody has logged in, and which each test finds empty."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def nothing_holds_the_token(hub, home, tmp_path):
    """Whatever a test has written, printed or uploaded is searched for the token."""
    yield
    written = {path: path.read_bytes() for top in (tmp_path, home) for path in top.rglob("*") if path.is_file()}
    written.pop(home / "token", None)  # Where `hf auth login` keeps it.
    shutil.rmtree(home)
    home.mkdir()
    for repo in hub.repos.values():
        for commit, files in repo.commits.items():
            written |= {f"{commit} {path}": content for path, content in files.items()}
    assert [place for place, content in written.items() if TOKEN.encode() in content] == []
    assert [place for place, content in written.items() if b"X-Amz-Signature" in content] == []


@pytest.fixture
def environment(hub, home, tmp_path):
    """Of a process that knows this Hub alone, and the toy backend, which needs no framework."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "CLM_"))}
    own = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "CLM_CACHE": str(tmp_path / "cache"),
        "CLM_HUB_RETRIES": "1",
        "CLM_HUB_WAIT": "0.01",
        "CLM_HUB_TIMEOUT": "2",
        "CLM_BACKEND": "bigram",
        # transformers would import them.
        "USE_TF": "0",
        "USE_TORCH": "0",
        "PYTHONPATH": str(TESTS.parent),
    }
    return {**kept, **own}


class Worker:
    """A process that runs commands of clm for one test after the other."""

    def __init__(self, environment):
        self.process = subprocess.Popen(
            [sys.executable, TESTS / "support" / "hub_worker.py"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self):
        self.process.kill()
        self.process.communicate()


class Clm:
    """Commands of clm, in a folder and an environment."""

    def __init__(self, worker, folder, environment):
        self.process, self.folder, self.environment = worker.process, folder, environment
        self.errors = folder / "printed.txt"
        self.running = False

    def start(self, *argv):
        """Begin a command."""
        self.running = True
        asked = {"argv": [str(argument) for argument in argv], "folder": str(self.folder)}
        self.process.stdin.write(json.dumps({**asked, "environment": self.environment}) + "\n")
        self.process.stdin.flush()

    def wait(self):
        """The exit code of the command that was begun."""
        line = self.process.stdout.readline()
        assert line, self.err
        self.running = False
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


@pytest.fixture(scope="session")
def workers():
    """The processes that serve many tests, by the backend that they were started for."""
    started = {}
    yield started
    for worker in started.values():
        worker.close()


@pytest.fixture
def clm(workers, environment, tmp_path):
    """Commands of clm with the toy backend, in a process that serves other tests too."""
    backend = environment["CLM_BACKEND"]
    if backend not in workers:
        workers[backend] = Worker(environment)
    commands = Clm(workers[backend], tmp_path, environment)
    yield commands
    if commands.running:  # The test failed before its command came to an end, which the next one is not to meet.
        workers.pop(backend).close()


@pytest.fixture
def new_clm(tmp_path):
    """The same in a new process: for an environment that is read when it starts, or a test that interrupts it."""
    started = []

    def start(environment):
        started.append(Worker(environment))
        return Clm(started[-1], tmp_path, environment)

    yield start
    for worker in started:
        worker.close()


@pytest.fixture
def training(tmp_path):
    """A training of the toy backend that publishes: 18 steps in a tenth of a second."""
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    small = ["--block-size", "16", "--per-device-train-batch-size", "4", "--max-steps", "18"]
    small += ["--validation-split-percentage", "0"]  # Without metrics, which take seconds to import.
    model = ["--model-type", "gpt2", "--tokenizer-name", "sample", "--train-file", "corpus.jsonl"]
    return ["train", *model, *small, "--output-dir", "run", "--push-to-hub"]


class Fit:
    """A process that fits a model with a callback, and says what became of it."""

    def __init__(self, process, errors):
        self.process, self.errors = process, errors

    def answer(self):
        """What it prints next."""
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        return json.loads(line)

    def go_on(self):
        """Let it go on where it waits."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.fixture
def fit(environment, tmp_path):
    """Start a program of this folder that fits a model with `PushToHubCallback` of these arguments."""
    environment = {name: value for name, value in environment.items() if name not in ("USE_TF", "USE_TORCH")}
    errors, started = tmp_path / "printed.txt", []

    def start(program, *more, **arguments):
        with errors.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, Path(__file__).parent / program, json.dumps(arguments), *more],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        started.append(process)
        return Fit(process, errors)

    yield start
    for process in started:
        process.kill()
        process.communicate()
