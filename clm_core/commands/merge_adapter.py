"""`clm merge-adapter`: make a whole model of an adapter and the model that it belongs to."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from clm_core.adapters.merging import merged
from clm_core.commands import summary
from clm_core.commands.call import Call
from clm_core.config import MergeConfig, TokenizerOptions
from clm_core.durable import share, sync, sync_folder
from clm_core.durable.disk_errors import writing
from clm_core.durable.files import temporary_folder
from clm_core.durable.lock import locked, remove_abandoned
from clm_core.errors import OptionError, OutputError
from clm_core.inputs import check_undamaged
from clm_core.models import model_folder
from clm_core.models.configurations import described
from clm_core.models.generation_settings import load_settings
from clm_core.models.presence import look_for
from clm_core.models.tokenizers import load_tokenizer
from clm_core.options import resolve
from clm_core.results import MergeResult
from clm_core.runs.output import check_writable
from clm_core.screen.exit_codes import ExitCode
from clm_core.screen.progress import Progress
from clm_core.weights import save

TEMPORARY = ".merged-"
"""Prefix of the name of the folder in which a model is written."""


def run(call: Call) -> ExitCode:
    """Carry out the command line."""
    with call.progress() as progress:
        result = merge_adapter(call.folder, resolve.merging(call.given), progress)
    call.print(result, lambda: summary.of_merging(result))
    return ExitCode.DONE


def merge_adapter(run: Path, config: MergeConfig, progress: Progress) -> MergeResult:
    """Write the model that an adapter and its base make, with its tokenizer, as transformers opens it.

    Raises:
        OptionError: no folder is given to write to, or there is no adapter.
        ModelError: the adapter or its base is damaged, or cannot be read.
        OutputError: the folder is there already, or cannot be written.
    """
    if config.output_dir is None:
        raise OptionError("output_dir: give the folder to write the model to, with --output-dir")
    folder, options = Path(config.output_dir), TokenizerOptions(model_name_or_path=str(run))
    if folder.exists():
        raise OutputError(f"output_dir {folder} is there already: choose a new folder")
    check_writable(folder)
    look_for("folder", str(run))
    check_undamaged(options, progress)
    model = described(options, progress.say, seed=0)
    if model.adapter is None:
        raise OptionError(f"{run} is a whole model: there is no adapter in it to merge")
    check_undamaged(TokenizerOptions(model_name_or_path=model.name_or_path), progress)
    tokenizer, settings = load_tokenizer(options), load_settings(options)
    progress.say(f"merging {run} into {model.name_or_path}")
    weights = merged(model)
    with _written(folder) as staged:
        save(weights, model.architecture, staged, generation_config=settings)
        model_folder.complete(staged, tokenizer, model.architecture)
    return MergeResult(folder=folder, adapter=str(run), base=str(model.name_or_path), tensors=len(weights))


@contextmanager
def _written(folder: Path) -> Iterator[Path]:
    """A folder that takes its place when it is whole; else nothing of it is left."""
    parent = folder.absolute().parent
    with writing(folder):
        parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent, TEMPORARY)
    with writing(folder), temporary_folder(parent, TEMPORARY) as temporary, ExitStack() as lock:
        with suppress(OSError):  # A disk without locks: should this process be killed, nobody removes what it leaves.
            lock.enter_context(locked(temporary))
        staged = temporary / folder.name
        staged.mkdir()
        yield staged
        share(staged)
        sync(staged)
        staged.rename(folder)
        sync_folder(parent)
