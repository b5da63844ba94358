"""The command `clm`: parse, dispatch, print."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from clm_core import noise, options, progress
from clm_core.backend import Backend
from clm_core.config import (
    EvaluateConfig,
    GenerateConfig,
    InspectConfig,
    ParityConfig,
    PrepareConfig,
    PushConfig,
    TrainConfig,
)
from clm_core.errors import OptionError
from clm_core.exit_codes import ExitCode
from clm_core.options import Given
from clm_core.recipes import list_recipes
from clm_core.registry import VARIABLE, get_backend, list_backends
from clm_core.results import Publication, Result
from clm_core.standard_streams import complain, escaped_output, open_closed, print_json, read_input, show

VERBS: dict[str, tuple[type | None, str]] = {
    "train": (TrainConfig, "fine-tune a model, or train one from scratch"),
    "evaluate": (EvaluateConfig, "loss, perplexity, accuracy and bits per byte on a validation split"),
    "generate": (GenerateConfig, "continue a prompt"),
    "prepare": (PrepareConfig, "tokenize data once, for every backend"),
    "inspect": (InspectConfig, "look at prepared data"),
    "push": (PushConfig, "publish a run or prepared data on the Hub, or go on where an upload stopped"),
    "parity": (ParityConfig, "the same training through two backends, compared step by step"),
    "backends": (None, "the frameworks that are here, and how to get the others"),
}

WITHOUT_BACKEND = ("inspect", "push", "backends")

NOT_OPTIONS = {"verb", "backend", "json", "verbose", "config", "prompt", "folder"}
"""What a command line holds besides the options of the verb."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return one of the codes of `clm_core.exit_codes`."""
    environment, arguments = dict(os.environ), list(sys.argv[1:] if argv is None else argv)
    open_closed()
    try:
        with escaped_output():
            return _run(arguments)
    except SystemExit:  # After --help and --version.
        raise
    except BaseException as error:
        from clm_core.endings import end

        return end(error, arguments, verbose="--verbose" in arguments)
    finally:  # What the command has set for its frameworks is not for whoever called it.
        os.environ.clear()
        os.environ.update(environment)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.dest == "verb" and value not in VERBS:
            from clm_core import hints

            raise OptionError(f"unknown verb {value!r}{hints.of_verb(value, VERBS)}")
        super()._check_value(action, value)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help, or the version, which are all that a parser here prints."""
        show(message.removesuffix("\n"))


def _run(argv: list[str]) -> int:
    parser = _parser(argv)
    namespace, unknown = parser.parse_known_args(argv)
    verb = getattr(namespace, "verb", None)
    if unknown:
        raise _unknown_argument(unknown[0], VERBS[verb][0] if verb else None)
    if verb is None:
        parser.print_help()
        return 0
    for name in ("backend", "json", "verbose", "config"):
        setattr(namespace, name, getattr(namespace, name, None))
    _set_environment()
    if namespace.backend and verb in WITHOUT_BACKEND:
        raise OptionError(f"--backend {namespace.backend}: {verb} has no use for one, leave it out")
    handlers: dict[str, Callable[[argparse.Namespace], int | None]] = {
        "train": _train,
        "evaluate": _evaluate,
        "generate": _generate,
        "prepare": _prepare,
        "inspect": _inspect,
        "push": _push,
        "parity": _parity,
        "backends": _backends,
    }
    return handlers[verb](namespace) or 0


def _set_environment() -> None:
    """Nothing phones home, and no bars of others' go to where there is no terminal."""
    # A thread that outlives the command would print its message, signed addresses too, as an error of the log itself.
    logging.raiseExceptions = False
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    common = _common_flags()
    parser = _Parser(
        prog="clm",
        description="Causal language models: one recipe, two frameworks.",
        epilog="`clm train` alone, with --backend where there are several, trains a small model on the built-in sample "
        "in a minute, without a network.",
        parents=[common],
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"clm {version('clm')}")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", parser_class=_Parser)
    for verb, (config, help) in VERBS.items():
        sub = verbs.add_parser(
            verb, help=help, description=help[0].upper() + help[1:] + ".", parents=[common], allow_abbrev=False
        )
        if config is not None and verb in argv:
            _add_verb_flags(sub, verb, config)
    return parser


def _common_flags() -> _Parser:
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--backend",
        action=options.Once,
        metavar="NAME",
        help=f"the framework (or {VARIABLE}; default: the only one here)",
    )
    common.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    common.add_argument("--verbose", action="store_true", help="show what the framework prints")
    return common


def _add_verb_flags(parser: argparse.ArgumentParser, verb: str, config: type) -> None:
    if verb == "generate":
        parser.add_argument("prompt", nargs="?", help="the text to continue; default: standard input")
    folders = {
        "inspect": "a folder written by `clm prepare`",
        "push": "the folder of a run, or one written by `clm prepare`",
    }
    if verb in folders:
        parser.add_argument("folder", help=folders[verb])
    else:
        recipes = ", ".join(list_recipes())
        parser.add_argument(
            "--config",
            action=options.Once,
            metavar="FILE",
            help=f"options from a YAML file, or from a recipe: {recipes}",
        )
    options.add_flags(parser, config)
    if verb in ("train", "parity"):
        for status in list_backends():
            if verb == "parity":
                flag = parser.add_argument(
                    f"--python-{status.name}", action=options.Once, dest=f"python.{status.name}", metavar="PATH"
                )
                flag.default, flag.help = argparse.SUPPRESS, f"the Python that has backend {status.name}; default: this"
            if status.backend is not None:
                title = f"Options of backend {status.name} alone"
                options.add_flags(parser, status.backend.options, prefix=f"{status.name}-", group=title)


def _unknown_argument(argument: str, config: type | None) -> OptionError:
    if not argument.startswith("-"):
        return OptionError(f"unexpected argument {argument!r}: options begin with --, text with spaces is in quotes")
    known = [option.name for option in options.list_options(config)] if config else []
    flag = argument.split("=")[0]
    name = flag.lstrip("-").replace("-", "_")
    return options.unknown(name, [*known, "config", "backend", "json", "verbose"], flag)


def _given(namespace: argparse.Namespace) -> dict[str, Given]:
    return options.from_flags(namespace, set(vars(namespace)) - NOT_OPTIONS)


def _train(namespace: argparse.Namespace) -> int:
    from clm_core import requests, runs, summary

    with _session(namespace) as (backend, progress):
        request = requests.training(_given(namespace), file=namespace.config, backend=backend)
        _start(namespace, request.config, backend)
        result = runs.train(request, progress)
        completion = None if namespace.json else summary.complete_sample(request, result)
    _print(namespace, result, lambda: summary.of_training(request.config, result, completion))
    return _code_of_upload(result.hub)


def _evaluate(namespace: argparse.Namespace) -> None:
    from clm_core import requests, runs, summary

    with _session(namespace) as (backend, progress):
        request = requests.evaluation(_given(namespace), file=namespace.config, backend=backend)
        _start(namespace, request.config, backend)
        result = runs.evaluate(request, progress)
    _print(namespace, result, lambda: summary.of_evaluation(result))


def _generate(namespace: argparse.Namespace) -> None:
    from clm_core import requests, runs

    prompt = namespace.prompt if namespace.prompt is not None else _read_prompt()
    with _session(namespace) as (backend, shown):
        request = requests.generation(_given(namespace), file=namespace.config, backend=backend)
        _start(namespace, request.config, backend)
        result = runs.generate(request, prompt, shown)
    _print(namespace, result, lambda: result.prompt + result.completion)


def _prepare(namespace: argparse.Namespace) -> int:
    from clm_core import requests, runs, summary
    from clm_core.first_look import look

    if namespace.backend:
        get_backend(namespace.backend)
    with noise.hushed(verbose=namespace.verbose) as stream:
        config = requests.preparation(_given(namespace), file=namespace.config)
        look(config)
        result = runs.prepare(config, progress.terminal_progress(stream))
    _print(namespace, result, lambda: summary.of_preparation(config, result, namespace.backend))
    return _code_of_upload(result.hub)


def _inspect(namespace: argparse.Namespace) -> None:
    from clm_core import inspection, requests, summary

    config = requests.inspection(_given(namespace))
    with noise.hushed(verbose=namespace.verbose):
        result = inspection.inspect(Path(namespace.folder), config)
    _print(namespace, result, lambda: summary.of_inspection(result))


def _parity(namespace: argparse.Namespace) -> int:
    from clm_core import comparison, comparison_table, requests
    from clm_core.first_look import look

    if namespace.backend:
        raise OptionError("--backend: parity compares two: name them as --backends A B")
    request = requests.parity(_given(namespace), file=namespace.config)
    look(request.config)
    with noise.hushed(verbose=namespace.verbose) as stream:
        result = comparison.compare(request, progress.terminal_progress(stream))
    _print(namespace, result, lambda: comparison_table.of_parity(result))
    return ExitCode.DIFFERENT if result.parted else ExitCode.DONE


def _push(namespace: argparse.Namespace) -> int:
    from clm_core import pushing, requests, summary

    with noise.hushed(verbose=namespace.verbose) as stream:
        config = requests.publication(_given(namespace))
        done = pushing.push(Path(namespace.folder), config, progress.terminal_progress(stream))
    _print(namespace, done, lambda: "\n".join(summary.of_publication(done)))
    return _code_of_upload(done)


def _code_of_upload(done: Publication | None) -> int:
    return ExitCode.NOT_UPLOADED if done and done.state == "failed" else ExitCode.DONE


def _backends(namespace: argparse.Namespace) -> int:
    from clm_core import installation

    found, strangers = list_backends(), installation.strangers()
    if strangers:
        complain(f"clm: warning: {installation.warning(strangers)}")
    if namespace.json:
        print_json(json.dumps({status.name: status.problem or "ready" for status in found}))
    else:
        lines = [f"{status.name:12} {status.problem or 'ready'}" for status in found]
        show("\n".join(lines) or "no backend is installed")
    return ExitCode.DIFFERENT if strangers else ExitCode.DONE


@contextmanager
def _session(namespace: argparse.Namespace) -> Iterator[tuple[Backend, progress.Progress]]:
    """The chosen backend, with its framework kept quiet, and where progress is shown."""
    backend = get_backend(namespace.backend)
    with noise.hushed(verbose=namespace.verbose) as stream:
        yield backend, progress.terminal_progress(stream)


def _start(namespace: argparse.Namespace, config: Any, backend: Backend) -> None:
    """Start the framework, unless something is wrong that can be seen without it."""
    from clm_core.first_look import look

    look(config, backend.name)
    backend.start(verbose=namespace.verbose)


def _read_prompt() -> str:
    if sys.stdin is not None and sys.stdin.isatty():
        print("prompt, ended by Ctrl-D:", file=sys.stderr)
    return read_input()


def _print(namespace: argparse.Namespace, result: Result, text: Callable[[], str]) -> None:
    if namespace.json:
        print_json(result.to_json())
    else:
        show(text())
