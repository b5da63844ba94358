"""`clm prepare`: tokenize data once, into a folder that every backend reads."""

from pathlib import Path

from clm_core.commands import summary
from clm_core.commands.call import Call, code_of_upload
from clm_core.commands.first_look import look
from clm_core.config import PrepareConfig
from clm_core.data.merging import merge
from clm_core.data.preparation import check_blocks
from clm_core.data.prepared import Prepared
from clm_core.errors import DataError
from clm_core.hub import pushing
from clm_core.inputs import announce, check_undamaged, prepared_by, prepared_line
from clm_core.models.tokenizers import load_tokenizer
from clm_core.options import resolve
from clm_core.registry import get_backend
from clm_core.results import PreparationResult
from clm_core.screen.exit_codes import ExitCode
from clm_core.screen.progress import Progress


def run(call: Call) -> ExitCode:
    """Carry out the command line."""
    if call.backend:
        get_backend(call.backend)
    with call.progress() as progress:
        config = resolve.preparation(call.given, file=call.config)
        look(config)
        result = prepare(config, progress)
    call.print(result, lambda: summary.of_preparation(config, result, call.backend))
    return code_of_upload(result.hub)


def prepare(config: PrepareConfig, progress: Progress) -> PreparationResult:
    """Tokenize data, or merge shards that were tokenized elsewhere, into a folder that every backend reads."""
    folder = Path(config.output_dir) if config.output_dir else None
    publisher = pushing.data_publisher(config, progress)
    if config.merge:
        parts = [Path(part) for part in config.merge]
        prepared, reused = merge(parts, folder, overwrite=config.overwrite_cache, say=progress.say)
        progress.say(
            prepared_line(prepared, config.block_size, "using merged data from the cache" if reused else "merged")
        )
    else:
        check_undamaged(config, progress)
        announce(config, progress)
        prepared, reused = prepared_by(config, load_tokenizer(config), progress, folder)
    if prepared.shard is None:
        _say_if_short(prepared, config.block_size, progress)
    return PreparationResult(
        folder=prepared.folder,
        reused=reused,
        tokenizer_name=prepared.manifest.tokenizer_name,
        ledger=prepared.ledger(config.block_size),
        hub=publisher(prepared),
    )


def _say_if_short(prepared: Prepared, block_size: int, progress: Progress) -> None:
    """Report for which block sizes there are too few tokens; a preparation does not fail for it."""
    try:
        check_blocks(prepared, block_size, list(prepared.manifest.splits))
    except DataError as error:
        progress.say(f"for a training: {error}")
