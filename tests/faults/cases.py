"""What may happen to a run, and what must become of it then: a case for each operation, signal and damage.

A case is done in a folder of its own and returns what is wrong, a line each; nothing, as it should be.
"""

import errno
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from injection import ERRORS, NOTHING, Fault, can_fail
from short_runs import Ended, Laboratory, differences, state

from clm_core import checkpoints


@dataclass(frozen=True)
class Case:
    """One of the things that may happen."""

    name: str
    check: Callable[[], list[str]]


@dataclass(frozen=True)
class Whole:
    """A run that nothing happened to."""

    ended: Ended
    state: dict[str, object]
    steps: Callable[[], dict[str, dict[str, object]]]
    """The checkpoints that such a run has at each step; takes another run."""

    @property
    def points(self) -> range:
        """The file operations, by their numbers."""
        return range(len(self.ended.operations))

    def named(self, point: int) -> str:
        """An operation and the file it is about, without where that lies."""
        operation, path = self.ended.operations[point].split(" ", 1)
        return f"{point} {operation} {path.partition('/case-')[2].partition('/')[2]}"


def whole(lab: Laboratory, **options: object) -> Whole:
    """The run that the others are compared with, made once."""
    key = f"whole {options}"
    if key not in lab.made:
        case = lab.case()
        _expect(ended := lab.train(case, **options), 0)
        each = {**options, "save_steps": 1, "save_total_limit": "none"}
        steps = cache(lambda: _checkpoints(made_once(lab, f"each {options}", 0, **each) / "run"))
        lab.made[key] = Whole(ended, state(case / "run"), steps)
    made: Whole = lab.made[key]
    return made


def made_once(lab: Laboratory, key: str, code: int, fault: Fault = NOTHING, **options: object) -> Path:
    """The folder of a run that ended with this code, from which cases start."""
    if key not in lab.made:
        lab.made[key] = lab.case()
        _expect(lab.train(lab.made[key], fault, **options), code)
    folder: Path = lab.made[key]
    return folder


def kills(lab: Laboratory, kind: str = "kill") -> Iterator[Case]:
    """The process is gone before an operation, or, of kind "half", within a write."""
    made = whole(lab)
    for point in made.points:
        if kind == "kill" or _writes(made.ended.operations[point]):
            yield Case(f"{kind} at {made.named(point)}", partial(_killed, lab, [Fault(kind, point)]))


def kills_of_resumed(lab: Laboratory) -> Iterator[Case]:
    """A run that was killed goes on, and is killed again at an operation."""
    fault = Fault("signal", number=signal.SIGKILL, event="StepDone 3")
    template = made_once(lab, "interrupted", -signal.SIGKILL, fault)
    case = lab.case(template)
    ended = lab.train(case)
    made = replace(whole(lab), ended=ended)
    for point in made.points:
        yield Case(f"kill at {made.named(point)}, resumed", partial(_killed, lab, [Fault("kill", point)], template))


def kills_twice(lab: Laboratory) -> Iterator[Case]:
    """The run is killed at an operation, and what goes on from there is killed at another one."""
    made = whole(lab)
    drawn = random.Random(0)
    for first in made.points:
        second = drawn.randrange(len(made.points))
        faults = [Fault("kill", first), Fault("kill", second)]
        yield Case(f"kill at {made.named(first)}, then at {second}", partial(_killed, lab, faults))


def kills_at_moments(lab: Laboratory, count: int = 50) -> Iterator[Case]:
    """The process is gone at any moment."""
    longest, drawn = whole(lab).ended.seconds, random.Random(1)
    for _ in range(count):
        seconds = drawn.uniform(0, longest)
        yield Case(f"kill after {seconds:.2f} s", partial(_killed_after, lab, seconds))


def errors(lab: Laboratory, name: str, *, always: bool) -> Iterator[Case]:
    """An operation fails, once or from then on."""
    made = whole(lab)
    number = getattr(errno, name)
    for point in filter(lambda at: can_fail(made.ended.operations[at], number), made.points):
        fault = Fault("error", point, number, always)
        named = f"{name} at {made.named(point)}{' and from then on' * always}"
        yield Case(named, partial(_failed, lab, fault, is_write=_writes(made.ended.operations[point])))


def signals(lab: Laboratory, number: int = signal.SIGTERM) -> Iterator[Case]:
    """The process gets a signal at an operation, or when something of the training has happened."""
    made = whole(lab)
    for point in made.points:
        named = f"{signal.Signals(number).name} at {made.named(point)}"
        yield Case(named, partial(_asked, lab, Fault("signal", point, number)))
    for line in made.ended.log:
        if line.startswith("- "):
            fault = Fault("signal", number=number, event=line.removeprefix("- "))
            yield Case(f"{signal.Signals(number).name} after {fault.event}", partial(_asked, lab, fault))


def overwrites(lab: Laboratory) -> Iterator[Case]:
    """A finished run is overwritten by another, which is killed at an operation, twice in a row."""
    template, new = made_once(lab, "old", 0, seed=7), whole(lab)
    case = lab.case(template)
    ended = lab.train(case, **OVERWRITE)
    made = replace(new, ended=ended)
    for point in made.points:
        yield Case(f"kill at {made.named(point)}, overwriting", partial(_overwritten, lab, template, made, point))


TRAINED = ("model.safetensors", checkpoints.MOMENTS)
NUMBERS = tuple(getattr(errno, name) for name in ERRORS)
OVERWRITE = {"overwrite_output_dir": True, "resume_from_checkpoint": None}


def _killed(lab: Laboratory, faults: list[Fault], template: Path | None = None) -> list[str]:
    case = lab.case(template)
    for number, fault in enumerate(faults):
        ended = lab.train(case, fault)
        if ended.code != -signal.SIGKILL and not (number and ended.code == 0):  # What goes on has fewer operations.
            return [f"{fault}: {how(ended)}"]
    return _goes_on(lab, case)


def _killed_after(lab: Laboratory, seconds: float) -> list[str]:
    case = lab.case()
    lab.train(case, kill_after=seconds)
    return _goes_on(lab, case)


def _failed(lab: Laboratory, fault: Fault, *, is_write: bool) -> list[str]:
    case = lab.case()
    ended = lab.train(case, fault)
    wrong = _checkpoints_as_written(lab, case, ended, fault)
    if ended.code == 0:  # What failed was tried again, or is not needed.
        return [*wrong, *_is_finished(lab, case, ended)]
    lines = [line for line in ended.err.splitlines() if line.startswith("clm: error: ")]
    begun = (case / "run" / "run.yaml").exists()
    if ended.code not in ((4,) if begun else (2, 4)) or len(lines) != 1:
        wrong.append(how(ended))
    elif "run" not in lines[0]:
        wrong.append(f"no path in {lines[0]}")
    elif begun and is_write and not ("needed" in lines[0] and "free" in lines[0]):
        wrong.append(f"no sizes in {lines[0]}")
    return [*wrong, *_traceback(ended), *_goes_on(lab, case)]


def _asked(lab: Laboratory, fault: Fault) -> list[str]:
    case = lab.case()
    ended = lab.train(case, fault)
    if ended.code == 0:
        finished = _is_finished(lab, case, ended, any_checkpoints=True)
        return [f"exit 0 after a signal: {line}" for line in finished]
    wrong = [] if ended.code == 128 + fault.number else [how(ended)]
    wrong += _checkpoints_as_written(lab, case, ended, fault)
    return [*wrong, *_traceback(ended), *_goes_on(lab, case, any_checkpoints=True)]


def _overwritten(lab: Laboratory, template: Path, made: Whole, point: int) -> list[str]:
    case, wrong = lab.case(template), []
    old = state(template / "run")
    stepped = False
    for _ in range(2):
        ended = lab.train(case, Fault("kill", point), **OVERWRITE)
        stepped |= ended.events_before(point, "StepDone") > 0
        wrong += [] if stepped else _old_one_is_there(lab, case, old)
    ended = lab.train(case, **OVERWRITE)
    return [*wrong, *_is_finished(lab, case, ended)]


def _old_one_is_there(lab: Laboratory, case: Path, old: dict[str, object]) -> list[str]:
    """Its own command finds it finished, wherever it was put in the meantime."""
    copy = lab.case(case)
    ended = lab.train(copy, seed=7)
    if ended.code != 0 or (different := differences(state(copy / "run"), old)):
        return [f"the old run is lost: {how(ended)} {different}"]
    return []


def preparations(lab: Laboratory) -> Iterator[Case]:
    """The preparation of data is killed, told to end, or fails at an operation under the cache."""
    case = lab.case()
    _expect(ended := _prepare(lab, case), 0)
    wanted = _prepared(case)
    for point, operation in enumerate(ended.operations):
        for fault in (
            Fault("kill", point),
            Fault("signal", point, signal.SIGTERM),
            *(Fault("error", point, number) for number in NUMBERS if can_fail(operation, number)),
        ):
            named = f"{fault}, {operation.partition('/case-')[2].partition('/')[2]}, preparing"
            yield Case(named, partial(_prepared_again, lab, fault, wanted))


def _prepare(lab: Laboratory, case: Path, fault: Fault = NOTHING) -> Ended:
    given = {"--train-file": "../corpus.jsonl", "--tokenizer-name": "sample", "--block-size": "16"}
    argv = ["prepare", "--json", *(text for pair in given.items() for text in pair)]
    return lab.run(case, argv, fault, CLM_CACHE=str(case / "cache"))


def _prepared(case: Path) -> dict[str, object]:
    return {name: it for name, it in state(case / "cache").items() if not name.startswith((".locks", ".stamps"))}


def _prepared_again(lab: Laboratory, fault: Fault, wanted: dict[str, object]) -> list[str]:
    case = lab.case()
    ended = _prepare(lab, case, fault)
    full = fault.number in (errno.ENOSPC, errno.EDQUOT)
    code = {"kill": -signal.SIGKILL, "signal": 128 + fault.number, "error": 4 if full else 2}[fault.kind]
    wrong = [] if ended.code in (0, code) else [how(ended)]
    if fault.kind == "signal" and _prepared(case) not in ({}, wanted):
        wrong += [f"{name} is left" for name in _prepared(case)]
    _expect(_prepare(lab, case), 0)
    return [*wrong, *_traceback(ended), *differences(_prepared(case), wanted)]


def _goes_on(lab: Laboratory, case: Path, *, any_checkpoints: bool = False) -> list[str]:
    return _is_finished(lab, case, lab.train(case), any_checkpoints=any_checkpoints)


def _is_finished(lab: Laboratory, case: Path, ended: Ended, *, any_checkpoints: bool = False) -> list[str]:
    """Whether all is as it is after a run that nothing happened to.

    `any_checkpoints`: but for the checkpoints, some of which a signal asked for.
    """
    if ended.code != 0:
        return [how(ended)]
    found, wanted = state(case / "run"), dict(whole(lab).state)
    if any_checkpoints:
        last = f"{checkpoints.PREFIX}{len([1 for line in whole(lab).ended.log if line.startswith('- StepDone')])}"
        found, wanted = (_of_last_weights(it, last) for it in (found, wanted))
    beside = [f"{path.name} is left beside the run" for path in case.iterdir() if path.name != "run"]
    return [*differences(found, wanted), *beside, *_traceback(ended)]


def _of_last_weights(found: dict[str, object], last: str) -> dict[str, object]:
    """Of the checkpoints, only what was trained in the last one; its evaluation may have come after it."""
    other = {name for name in found if checkpoints.NAME.match(name)} - {f"{last}/{name}" for name in TRAINED}
    return {name: content for name, content in found.items() if name not in other}


def _checkpoints_as_written(lab: Laboratory, case: Path, ended: Ended, fault: Fault) -> list[str]:
    """Whether the checkpoints that are whole have what they had, and one is there of those saved before the fault."""
    found, wanted = _checkpoints(case / "run"), whole(lab).steps()
    wrong = [f"{name}: {line}" for name, it in found.items() for line in differences(it, wanted[name])]
    newest = max((int(name.removeprefix(checkpoints.PREFIX)) for name in found), default=0)
    if fault.kind == "signal":
        done = sum(line.startswith("- StepDone") for line in ended.log)
        return wrong if newest == done else [*wrong, f"the newest checkpoint is of step {newest}, {done} were done"]
    saved = 2 * ended.events_before(fault.at, "Saved")
    return wrong if newest >= saved else [*wrong, f"the newest checkpoint is of step {newest}, not of {saved}"]


def _checkpoints(run: Path) -> dict[str, dict[str, object]]:
    """Of each whole checkpoint, the weights and the state of the optimizer."""
    if not run.is_dir():
        return {}
    folders = [path for path in checkpoints.list_complete(run) if not checkpoints.faults(path)]
    return {path.name: {name: it for name, it in state(path).items() if name in TRAINED} for path in folders}


def _writes(operation: str) -> bool:
    return any(word in operation.split(" ", 1)[0] for word in ("write", "sendfile", "copy"))


def _traceback(ended: Ended) -> list[str]:
    return ["a traceback"] if "Traceback" in ended.err else []


def how(ended: Ended) -> str:
    """How a command ended, in a line."""
    said = ended.err.strip().splitlines()
    return f"exit {ended.code}, {said[-1] if said else 'nothing said'}"


def _expect(ended: Ended, code: int) -> None:
    if ended.code != code:
        raise RuntimeError(f"exit {ended.code}: {ended.err}")


ALL: dict[str, Callable[[Laboratory], Iterator[Case]]] = {
    "kill": kills,
    "half a write": partial(kills, kind="half"),
    "kill, resumed": kills_of_resumed,
    "kill twice": kills_twice,
    "kill at any moment": kills_at_moments,
    "kill, overwriting": overwrites,
    "SIGTERM": signals,
    "preparation": preparations,
    **{
        f"{name}{' from then on' * always}": partial(errors, name=name, always=always)
        for name in ERRORS
        for always in (False, True)
    },
}
