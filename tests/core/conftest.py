"""What the core's tests share: a cache of their own, warnings as errors, and the toy backend on a small corpus."""

import copy
import json
import warnings
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from clm_bigram import Bigrams
from small_corpus import DOCUMENTS, SMALL
from tokenizers import AddedToken

import clm_core as clm
from clm_core import cli, sample

with warnings.catch_warnings():  # What others warn of while they are imported is not the core's.
    warnings.simplefilter("ignore")
    import datasets  # noqa: F401
    import evaluate  # noqa: F401
    import transformers

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("error"), append=False)


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("CLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLM_BACKEND", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(sample.TOKENIZER)


@pytest.fixture
def chat(tokenizer):
    """The sample's tokenizer with a chat template."""

    def make(template, **changes):
        made = copy.deepcopy(tokenizer)
        made.add_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
        made.chat_template = template
        for name, value in changes.items():
            setattr(made, name, value)
        return made

    return make


@pytest.fixture
def corpus(tmp_path):
    """A file of 60 documents."""
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS), encoding="utf-8")
    return path


@pytest.fixture
def train(corpus):
    """Train the toy backend on the corpus, in a tenth of a second."""
    return lambda **options: clm.train(**{"backend": "bigram", "train_file": corpus, **SMALL, **options})


@pytest.fixture
def interrupted(train, tmp_path, monkeypatch):
    """A run of three epochs of 18 steps that was ended by Ctrl-C in the step after its 40th."""
    add, steps = Bigrams.add, iter(range(40))

    def stop_after_the_last(self, blocks):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        add(self, blocks)

    monkeypatch.setattr(Bigrams, "add", stop_after_the_last)
    with pytest.raises(KeyboardInterrupt):
        train(output_dir=tmp_path / "run", num_train_epochs=3, logging_steps=7)
    monkeypatch.setattr(Bigrams, "add", add)
    return tmp_path / "run"


@pytest.fixture
def killed_in_another_folder(interrupted, tmp_path, monkeypatch):
    """A run in another folder that begins from a checkpoint of the interrupted one, and is ended in its third step."""
    add, steps = Bigrams.add, iter(range(2))
    monkeypatch.setattr(Bigrams, "add", lambda self, it: 1 / 0 if next(steps, None) is None else add(self, it))
    with pytest.raises(ZeroDivisionError):
        clm.train(backend="bigram", resume_from_checkpoint=interrupted, output_dir=tmp_path / "new", logging_steps=9)
    monkeypatch.setattr(Bigrams, "add", add)
    return tmp_path / "new"


@pytest.fixture
def prepare(corpus):
    """Prepare the corpus in blocks of 16."""
    return lambda **options: clm.prepare(
        **{"train_file": corpus, "tokenizer_name": "sample", "block_size": 16, **options}
    )


@pytest.fixture
def refused(capsys, tmp_path):
    """Run a command that must fail: with code 2, one line, and no trace in the output folder. Returns the line."""

    def run(*argv):
        output = tmp_path / "output"
        before = sorted(output.rglob("*")) if output.is_dir() else None
        assert cli.main([str(argument) for argument in argv]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("clm: error: ")
        assert shown.err.count("\n") == 1
        assert (sorted(output.rglob("*")) if output.is_dir() else None) == before
        return shown.err

    return run


@pytest.fixture
def train_refused(refused, corpus):
    """The same for a training on the corpus, or on what is given in its place."""

    def run(*argv, data=("--train-file", str(corpus))):
        usual = {f"--{name.replace('_', '-')}": str(value) for name, value in {**SMALL, "output_dir": "output"}.items()}
        small = [text for flag, value in usual.items() if flag not in argv for text in (flag, value)]
        return refused("--backend", "bigram", "train", *data, *small, *argv)

    return run


@pytest.fixture
def installed(monkeypatch):
    """Makes backends known: classes, or functions that load one."""

    def install(**found):
        points = [
            SimpleNamespace(
                name=name,
                value=f"stranger:{name}",
                dist=SimpleNamespace(name="stranger"),
                load=(lambda it=it: it) if isinstance(it, type) else it,
            )
            for name, it in found.items()
        ]
        monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == "clm.backends" else [])

    return install
