"""The damage matrix: what may happen to each file of a run, and whether every command that reads it says so."""

import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from cases import Case, how, made_once, whole
from injection import Fault
from short_runs import Ended, Laboratory, differences, state

LONGER = {"max_steps": 6, "save_total_limit": 2}
"""A run with a checkpoint before the last one."""
OTHER = {**LONGER, "seed": 8}
LONGER_STILL = {**LONGER, "max_steps": 7}
Damage = Callable[[Path, Path], None]
"""What is done to a file; the second one has the same name, and is of another step, or another run."""


def truncate(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path, other: Path) -> None:
    file.write_bytes(b"")


def delete(file: Path, other: Path) -> None:
    file.unlink()


def append(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes() + b"7")


def swap(file: Path, other: Path) -> None:
    shutil.copyfile(other, file)


def flip(file: Path, other: Path, *, bit: int = 0x40, part: float = 0.5) -> None:
    """Change one bit: 0x40 makes another number of a weight, and 1 another digit of a text."""
    content = bytearray(file.read_bytes())
    place = int(len(content) * part)
    while bit == 1 and place < len(content) - 1 and not chr(content[place]).isdigit():
        place += 1
    content[place] ^= bit
    file.write_bytes(bytes(content))


DAMAGES: dict[str, Damage] = {
    "truncated": truncate,
    "emptied": empty,
    "deleted": delete,
    "appended to": append,
    "swapped": swap,
    "one bit changed": flip,
    "one digit changed": partial(flip, bit=1, part=0.3),
}


def of_interrupted(lab: Laboratory) -> Iterator[Case]:
    """A run that was killed, one of its files damaged, and resumed: by its command, and by its folder alone."""
    template = _interrupted(lab)
    for file in _files(template / "run", "checkpoint-4"):
        for name, damage in _possible(lab, template, file):
            for by in ("its command", "its folder"):
                check = partial(_resumed, lab, template, file, damage, by == "its folder")
                yield Case(f"{file} {name}, resumed by {by}", check)


def of_finished(lab: Laboratory) -> Iterator[Case]:
    """A finished run, one of its files damaged, and read by every command that reads it."""
    template = _finished(lab, **LONGER)
    for file in _files(template / "run", "checkpoint-6"):
        for name, damage in _possible(lab, template, file):
            yield Case(f"{file} {name}, verified", partial(_verified, lab, template, file, damage))
            if len(file.parts) > 1:
                yield Case(f"{file} {name}, trained longer", partial(_trained_longer, lab, template, file, damage))
            else:
                yield Case(f"{file} {name}, trained again", partial(_trained_again, lab, template, file, damage))
                yield Case(f"{file} {name}, evaluated", partial(_evaluated, lab, template, file, damage))


def _resumed(lab: Laboratory, template: Path, file: Path, damage: Damage, by_folder: bool) -> list[str]:
    case = _damaged(lab, template, file, damage)
    argv = ["--backend", lab.backend, "train", "--resume-from-checkpoint", "run"]
    ended = lab.run(case, argv) if by_folder else lab.train(case, **LONGER)
    wrong = _said(ended, file)
    if file.name == "run.yaml" and by_folder and "from now on" in ended.err:  # Another option, which is honoured.
        return wrong
    if ended.code == 0:
        different = differences(state(case / "run"), whole(lab, **LONGER).state)
        return [*wrong, *different]
    return wrong if ended.code == 2 else [*wrong, how(ended)]


def _verified(lab: Laboratory, template: Path, file: Path, damage: Damage) -> list[str]:
    case = _damaged(lab, template, file, damage)
    ended = lab.run(case, ["verify", "run"])
    if not (case / "run" / "results.json").exists() and "unfinished" in ended.out:
        return []  # What is a finished run has one.
    return _said(ended, file) + ([how(ended)] if ended.code not in (1, 2) else [])


def _trained_again(lab: Laboratory, template: Path, file: Path, damage: Damage) -> list[str]:
    """Its command says that it is finished only where that is so, or finishes it again."""
    case = _damaged(lab, template, file, damage)
    ended = lab.train(case, **LONGER)
    wrong = _said(ended, file)
    if ended.code == 0:
        return [*wrong, *differences(state(case / "run"), state(template / "run"))]
    return wrong if ended.code == 2 else [*wrong, how(ended)]


def _trained_longer(lab: Laboratory, template: Path, file: Path, damage: Damage) -> list[str]:
    """What it goes on from is whole: the checkpoint before the damaged one."""
    case = _damaged(lab, template, file, damage)
    ended = lab.train(case, **LONGER_STILL)
    wrong = _said(ended, file)
    if ended.code == 0:
        return [*wrong, *differences(_weights(case), _weights_from_the_one_before(lab, template, file.parts[0]))]
    return wrong if ended.code == 2 else [*wrong, how(ended)]


def _weights(case: Path) -> object:
    return state(case / "run")["model.safetensors"]


def _weights_from_the_one_before(lab: Laboratory, template: Path, newest: str) -> object:
    """What a run becomes that never had its newest checkpoint: its learning rates are other ones from there on."""
    key = f"longer without {newest}"
    if key not in lab.made:
        case = lab.case(template)
        shutil.rmtree(case / "run" / newest)
        lab.train(case, **LONGER_STILL)
        lab.made[key] = _weights(case)
    return lab.made[key]


def _evaluated(lab: Laboratory, template: Path, file: Path, damage: Damage) -> list[str]:
    """The score of a damaged model is named as such; what an evaluation does not read, it need not name."""
    case = _damaged(lab, template, file, damage)
    argv = ["--backend", lab.backend, "--json", "evaluate", "--model-name-or-path", "run"]
    ended = lab.run(case, [*argv, "--train-file", "../corpus.jsonl", "--block-size", "16", "--max-eval-samples", "4"])
    if ended.code == 0 and str(file.name) not in READ:
        return _traceback(ended)
    return _said(ended, file)


READ = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
"""The files of a model that a score follows from."""


def _said(ended: Ended, file: Path) -> list[str]:
    """Whether it says which file is damaged, in a line, whatever it does then."""
    named = file.name in ended.err or file.name in ended.out
    if file.name == "results.json":  # The sums in it are not those of the files.
        named |= "does not match its checksum" in ended.err + ended.out
    if file.name == "run.yaml":  # Its options are named one by one.
        named |= ended.code == 2 or "from now on" in ended.err
    return [*_traceback(ended), *([] if named else [f"silent: {how(ended)}"])]


def _traceback(ended: Ended) -> list[str]:
    return ["a traceback"] if "Traceback" in ended.err or ended.code == 70 else []


def _possible(lab: Laboratory, template: Path, file: Path) -> list[tuple[str, Damage]]:
    """The damages that change a file: another step may have had the same one."""
    other = _other(lab, template, file)
    same = not other.exists() or other.read_bytes() == (template / "run" / file).read_bytes()
    return [(name, damage) for name, damage in DAMAGES.items() if damage is not swap or not same]


def _damaged(lab: Laboratory, template: Path, file: Path, damage: Damage) -> Path:
    case = lab.case(template)
    damage(case / "run" / file, _other(lab, template, file))
    return case


def _other(lab: Laboratory, template: Path, file: Path) -> Path:
    """A file of the same name, of another step or of another run."""
    if len(file.parts) > 1:
        step = int(file.parts[0].removeprefix("checkpoint-"))
        return template / "run" / f"checkpoint-{step - 2}" / file.name
    return _finished(lab, **OTHER) / "run" / file


def _files(run: Path, newest: str) -> list[Path]:
    """Those of the run, and of its newest checkpoint."""
    paths = [path for folder in (run, run / newest) for path in sorted(folder.iterdir()) if path.is_file()]
    return [path.relative_to(run) for path in paths if path.name != ".lock"]


def _interrupted(lab: Laboratory) -> Path:
    fault = Fault("signal", number=signal.SIGKILL, event="StepDone 5")
    return made_once(lab, "damaged", -signal.SIGKILL, fault, **LONGER)


def _finished(lab: Laboratory, **options: object) -> Path:
    return made_once(lab, f"finished {sorted(options)}", 0, **options)
