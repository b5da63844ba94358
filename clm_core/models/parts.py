"""Which parameters a training changes: those that `freeze` and `train_only` leave to it."""

import re
from collections.abc import Collection, Iterator
from fnmatch import translate

from clm_core.config import OptimizationOptions, TrainConfig
from clm_core.counts import with_noun
from clm_core.errors import OptionError, did_you_mean, shown_names, similar

EMBEDDINGS = "embeddings"
"""The pattern for the token embeddings, and the matrix of an output layer that is not tied to them."""
LAYERS = re.compile(r"layers:(-?\d+)(?:-(-?\d+))?")
"""The pattern for one layer or several, both ends included; -1 is the last."""

OF_LAYER = re.compile(r"(.*?)\.(\d+)\.")
"""How the name of a parameter in a list begins: the name of the list, and the number in it."""
OUTPUT = re.compile(r"(^|[.*])(lm_head|embed_out|decoder)(\.weight)?$")
"""What people call an output layer that a model may not have, because it is tied."""


def trained(names: Collection[str], options: TrainConfig, *, embeddings: Collection[str]) -> set[str]:
    """The parameters that a training changes, out of those with these `names`, which are those in PyTorch's files.

    A pattern is a name of a parameter or of a module, whole or a part of it between dots, perhaps with `*`, `?` or
    `[...]`; or `embeddings`, which are those given as such; or layers by their numbers.

    Raises:
        OptionError: a pattern matches nothing, or nothing is left to train, or nothing of what is to have a rate.
    """
    if not (options.freeze or options.train_only):
        return set(names)
    option = "freeze" if options.freeze else "train_only"
    chosen: set[str] = set()
    for pattern in getattr(options, option):
        try:
            chosen |= _matched(pattern, names, embeddings)
        except OptionError as error:
            raise OptionError(f"{option} {pattern}: {error}") from None
    left = set(names) - chosen if options.freeze else chosen
    if not left:
        raise OptionError(f"freeze {' '.join(options.freeze)}: nothing is left to train")
    if options.embedding_learning_rate is not None and left.isdisjoint(embeddings):
        rate = f"embedding_learning_rate {options.embedding_learning_rate:g}"
        raise OptionError(f"{rate} has no effect: {option} leaves the embeddings as they are")
    return left


def relative_rate(options: OptimizationOptions) -> float:
    """What a step's learning rate is multiplied by for the embeddings."""
    rate = options.embedding_learning_rate
    return 1.0 if rate is None else rate / options.learning_rate


def _matched(pattern: str, names: Collection[str], embeddings: Collection[str]) -> set[str]:
    if pattern == EMBEDDINGS:
        found = set(embeddings) & set(names)
    elif numbers := LAYERS.fullmatch(pattern):
        found = _of_layers(names, int(numbers[1]), int(numbers[2] or numbers[1]))
    else:
        # A part of a name ends where the name does, or at a dot.
        regex = re.compile(rf"(?:.*\.)?(?:{translate(pattern)[:-2]})(?:\..*)?\Z", re.DOTALL)
        found = {name for name in names if regex.match(name)}
    if not found:
        raise OptionError(f"the model has no such parameter{_hint(pattern, names)}")
    return found


def _of_layers(names: Collection[str], first: int, last: int) -> set[str]:
    lists = _lists(names)
    count = max((len(numbers) for numbers in lists.values()), default=0)
    if not count:
        raise OptionError("the model has no layers that are numbered")
    start, end = (number + count if number < 0 else number for number in (first, last))
    if not 0 <= start < count or not 0 <= end < count:
        raise OptionError(f"the model has {with_noun(count, 'layer')}, {'0' if count == 1 else f'0 to {count - 1}'}")
    if start > end:
        raise OptionError(f"layer {first} comes after layer {last}: give the lower number first")
    # Of XLM, a layer is in several lists of one length.
    long = {name for name, numbers in lists.items() if len(numbers) == count}
    found = {name: OF_LAYER.match(name) for name in names}
    return {name for name, it in found.items() if it and it[1] in long and start <= int(it[2]) <= end}


def _lists(names: Collection[str]) -> dict[str, set[int]]:
    """The outermost lists of modules by their names, with the numbers in them."""
    found: dict[str, set[int]] = {}
    for name in names:
        if it := OF_LAYER.match(name):
            found.setdefault(it[1], set()).add(int(it[2]))
    return found


def _hint(pattern: str, names: Collection[str]) -> str:
    if "," in pattern:
        return f"; several are given with spaces: {' '.join(filter(None, pattern.split(',')))}"
    if OUTPUT.search(pattern):
        return "; the output layer is the token embeddings, which `embeddings` means"
    count = max(map(len, _lists(names).values()), default=0)
    layers = [f"layers:0-{count - 1}"] if count else []
    if layers and pattern.startswith("layer"):
        return did_you_mean(*layers)
    known = sorted({part for name in names for part in _parts(name)} | {EMBEDDINGS})
    last = re.sub(r"[*?\[\]]", "", pattern).rpartition(".")[2]
    near = similar(pattern, known, most=3) or similar(last, known, most=3)
    words = dict.fromkeys(word for name in names for word in name.split(".") if not word.isdigit())
    return did_you_mean(*near) or f"; there are {shown_names([EMBEDDINGS, *layers, *words])}"


def _parts(name: str) -> Iterator[str]:
    """The parts of a name: itself, the modules around it, and what comes between two dots."""
    words = name.split(".")
    yield from (".".join(words[:end]) for end in range(1, len(words) + 1))
    yield from (word for word in words if not word.isdigit())
