"""The sessions that prove clm: `nox` runs them all, `nox -s pt5` one; each in a separate environment."""

import shutil
import subprocess
from pathlib import Path

import nox

TORCH = "torch==2.13.0"  # The CPU build where a wheel of it is provided locally; newer ones bring gigabytes of CUDA.
TOY = "./examples/third_party_backend"


def runs(version: str) -> bool:
    """Whether this Python is here; a shim of that name may lead to none."""
    found = shutil.which(f"python{version}")
    return found is not None and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0


def install_series(session: nox.Session, series: str) -> None:
    """The backends that a series of transformers has, with it; what tf needs is enough for keras."""
    tensorflow = "tf" if series == "4.57" else "keras"
    session.install(f".[pt,{tensorflow},test]", TORCH, f"transformers>={series},<{int(float(series)) + 1}")


PYTHONS = [version for version in ("3.11", "3.12", "3.13", "3.14") if runs(version)]

nox.options.default_venv_backend = "venv"
nox.options.sessions = [
    *("lint", "typing", "core", "lowest", "pt5", "hub1", "pt4", "tf", "keras", "both", "examples", "wheel"),
]
nox.options.error_on_missing_interpreters = True


@nox.session
def lint(session: nox.Session) -> None:
    """Style."""
    session.install("ruff==0.17.6")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Types of the three packages; transformers and TensorFlow have none."""
    session.install("mypy==2.4.1", "types-PyYAML", "types-tqdm", ".[pt,test]", TORCH)
    session.run("mypy")


@nox.session(python=PYTHONS)
def core(session: nox.Session) -> None:
    """The core alone, with no framework installed, on every Python that is here."""
    session.install(".[fast,test,tensorboard]", TOY)
    session.run(
        "pytest", "tests/core", *(f"tests/contract/test_{name}.py" for name in ("bigram", "options")), *session.posargs
    )


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The lowest versions that pyproject.toml allows, and the newest of what those need; torch as in other sessions."""
    folder, extras = Path(session.create_tmp()), ("pt", "lora", "fast", "tensorboard", "test")
    (folder / "torch.txt").write_text(TORCH, encoding="utf-8")
    session.install("uv")
    session.run(
        *("uv", "pip", "compile", "--quiet", "--resolution", "lowest-direct", "--output-file", f"{folder}/lowest.txt"),
        *(f"--extra={extra}" for extra in extras),
        *("pyproject.toml", f"{folder}/torch.txt"),
        silent=True,
    )
    session.install("--constraint", f"{folder}/lowest.txt", f".[{','.join(extras)}]", TOY)
    suites = ("tests/core", "tests/pt", *(f"tests/contract/test_{name}.py" for name in ("bigram", "options", "pt")))
    session.run("pytest", *suites, *session.posargs)


@nox.session
def pt5(session: nox.Session) -> None:
    """PyTorch, on transformers 5."""
    session.install(".[pt,lora,fast,tensorboard,test]", TOY, TORCH, "transformers>=5,<6")
    suites = [f"tests/{name}" for name in ("pt", "architectures", "series", "hub")]
    session.run("pytest", *suites, "tests/contract/test_pt.py", *session.posargs)


@nox.session
def hub1(session: nox.Session) -> None:
    """Publishing, on the series of huggingface_hub between those of the other sessions."""
    session.install(".[fast,test]", TOY, "huggingface_hub>=1,<2")
    session.run("pytest", "tests/hub", *session.posargs)


@nox.session
def pt4(session: nox.Session) -> None:
    """PyTorch, on the last transformers 4."""
    session.install(".[pt,lora,fast,tensorboard,test]", TOY, TORCH, "transformers>=4.57,<5")
    session.run(
        "pytest", "tests/pt", "tests/architectures", "tests/series", "tests/contract/test_pt.py", *session.posargs
    )


@nox.session
def tf(session: nox.Session) -> None:
    """TensorFlow."""
    session.install(".[tf,fast,tensorboard,test]", TOY)
    suites = [f"tests/{name}" for name in ("core", "tf", "architectures", "series", "hub")]
    session.run("pytest", *suites, "tests/contract/test_tf.py", *session.posargs)


@nox.session
def keras(session: nox.Session) -> None:
    """Keras 3 on TensorFlow, on transformers 5 and without PyTorch."""
    session.install(".[keras,fast,test]", TOY)
    suites = [f"tests/{name}" for name in ("core", "keras3", "contract", "hub", "series")]
    session.run("pytest", *suites, *session.posargs)


@nox.session
def both(session: nox.Session) -> None:
    """Both frameworks in one environment, and so all three backends, since tf brings what keras needs: every test."""
    session.install(".[pt,tf,lora,fast,tensorboard,test]", TOY, TORCH)
    session.run("pytest", *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """The programs in examples/, unchanged."""
    session.install(".[pt,tf,lora,test]", TOY, TORCH)
    session.run("pytest", "tests/examples", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """The built wheel, in a clean environment: what is shipped is all that is needed."""
    dist = session.create_tmp()
    session.install("build")
    session.run("python", "-m", "build", "--wheel", "--outdir", dist, ".")
    session.install("--force-reinstall", "--no-deps", "--find-links", dist, "--no-index", "clm")
    session.install("clm", TOY)
    session.run("pip", "install", "--dry-run", "--quiet", "clm[keras]")  # It resolves, with transformers 5.
    session.cd(dist)
    session.run("clm", "--backend", "bigram", "train", "--max-steps", "20", "--output-dir", "run")
    session.run("clm", "--backend", "bigram", "generate", "--model-name-or-path", "run", "Good question!")


@nox.session
def parity(session: nox.Session) -> None:
    """The comparison in docs/parity.md, with its picture; takes minutes, and is not a test."""
    session.install(".[pt,tf]", TORCH)
    folder, sizes = session.create_tmp(), "n_layer=4,n_embd=128,n_head=4,n_positions=128"
    session.run(
        *("clm", "parity", "--config", "sample", "--config-overrides", sizes, "--learning-rate", "1e-3"),
        *("--max-steps", "200", "--compare-steps", "20", "--output-dir", f"{folder}/parity", *session.posargs),
    )
    shutil.copy(f"{folder}/parity/losses.png", "examples/parity.png")


@nox.session
def families(session: nox.Session) -> None:
    """Small Llama, Qwen3 and Gemma 3 by pt and keras: the table and the picture of docs/keras.md; takes minutes."""
    install_series(session, "5")
    session.run("python", "tests/evidence/families.py", session.create_tmp(), *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Kills, failing disks, signals and damage at every file operation of short runs: `nox -s faults -- pt`; hours."""
    session.install(".[pt,tf,lora,test]", TORCH, TOY)
    session.run("python", "tests/faults/fault_sweep.py", *session.posargs)


@nox.session
def scale(session: nox.Session) -> None:
    """Trainings in 1, 2, 3 and 4 processes and devices, with kills and changes of their number; takes minutes."""
    session.install(".[pt,tf,lora,test]", TORCH, TOY)
    environment = {"OMP_NUM_THREADS": "1"}
    session.run("pytest", "-o", "python_files=scale_*.py", "tests/scale", "-n0", *session.posargs, env=environment)


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmarks, which take minutes and are no tests: `nox -s bench -- prepare`, `loaders` or `train`."""
    name, *arguments = session.posargs or ["prepare"]
    session.install(*([".[fast]"] if name == "prepare" else [".[pt,tf]", TORCH]))
    session.run("python", f"tests/bench/{name}.py", *arguments)


@nox.session
def fields(session: nox.Session) -> None:
    """clm_core/models/ignored_fields.json, rebuilt in some twenty minutes: what each class does not read."""
    folder = session.create_tmp()
    session.install(".[pt,tf,lora,test]", TORCH, "transformers>=4.57,<5")
    for series in ("transformers>=4.57,<5", "transformers>=5,<6", "transformers>=4.57,<5"):  # 5 has new fields for it.
        session.install(series)
        session.run("python", "tests/architectures/fields.py", "measure", folder, *session.posargs)
    session.run("python", "tests/architectures/fields.py", "write", folder)


@nox.session
@nox.parametrize("series", ["4.57", "5"])
def architectures(session: nox.Session, series: str) -> None:
    """The table of docs/architectures.md, rebuilt in some minutes: all, or `nox -s architectures -- gpt2 bert`."""
    install_series(session, series)
    session.run("python", "tests/architectures/sweep.py", f"docs/architectures-{series}.json", *session.posargs)
    session.run("python", "tests/architectures/page.py")


@nox.session
def gpu(session: nox.Session) -> None:
    """The backends on this machine's GPU: docs/gpu.md, the contract, the agreement; fails where there is none."""
    session.install(".[pt,tf,fast,test]", "tensorflow[and-cuda]", TOY)
    # TensorFlow would leave PyTorch no memory in the same process.
    environment = {"CLM_TESTS_ON": "gpu", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    suites = ["tests/contract/test_pt.py", "tests/contract/test_tf.py", "tests/agreement"]
    session.run("python", "tests/evidence/gpu.py", "docs/gpu.md")
    session.run("python", "tests/bench/train.py", "--precisions", "fp32", "bf16", "dtype", "--add-to", "docs/gpu.md")
    session.run("pytest", *suites, *session.posargs, env=environment)
    alone = [f"tests/scale/scale_gpu_{framework}.py" for framework in ("torch", "tensorflow")]
    session.run("pytest", "-o", "python_files=scale_*.py", *alone, "-n0", env=environment)


@nox.session
@nox.parametrize("series", ["4.57", "5"])
def real(session: nox.Session, series: str) -> None:
    """Models from the Hub against plain transformers, and docs/real-SERIES.md: all, or `nox -s real -- gpt2 DIR`."""
    install_series(session, series)
    session.run("python", "tests/evidence/real.py", f"docs/real-{series}.json", *session.posargs)
