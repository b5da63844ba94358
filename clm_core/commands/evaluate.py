"""`clm evaluate`: score a model on the validation split."""

import time
from pathlib import Path

from clm_core.backend import BatchScored, EvaluationJob, Event
from clm_core.commands import summary
from clm_core.commands.call import Call
from clm_core.config import EvaluateConfig
from clm_core.data.manifest import VALIDATION
from clm_core.durable import write
from clm_core.inputs import announce, check_type, check_undamaged, existing_model, prepared_for
from clm_core.models.configurations import check_fits
from clm_core.models.ignored_fields import attention
from clm_core.models.tokenizers import load_tokenizer
from clm_core.options import resolve
from clm_core.options.resolve import Request
from clm_core.results import EvaluationResult
from clm_core.runs import output
from clm_core.screen.exit_codes import ExitCode
from clm_core.screen.progress import Progress


def run(call: Call) -> ExitCode:
    """Carry out the command line."""
    with call.session() as (backend, progress):
        request = resolve.evaluation(call.given, file=call.config, backend=backend)
        call.start(backend, request.config)
        result = evaluate(request, progress)
    call.print(result, lambda: summary.of_evaluation(result))
    return ExitCode.DONE


def evaluate(request: Request[EvaluateConfig], progress: Progress) -> EvaluationResult:
    """Score the validation split."""
    from clm_core.metrics import compute

    config, backend = request.config, request.backend
    if config.output_file:
        output.check_output_file(config.output_file)
    check_undamaged(config)
    announce(config, progress)
    model = existing_model(config, progress, seed=config.seed)
    check_type(model.architecture, backend)
    attention(model.architecture, backend.name)
    tokenizer = load_tokenizer(config)
    check_fits(model.architecture, tokenizer, config.block_size)
    prepared = prepared_for(config, model, tokenizer, progress, need=VALIDATION)
    blocks = prepared.blocks(VALIDATION, config.block_size)
    started = time.monotonic()
    with progress.bar("evaluating", len(blocks), "block") as bar:

        def report(event: Event) -> None:
            if isinstance(event, BatchScored):
                bar.advance(event.blocks)

        score = backend.evaluate(EvaluationJob(model=model, blocks=blocks, config=config, report=report))
    result = EvaluationResult(
        backend=backend.name,
        model=str(model.name_or_path),
        metrics=compute(score, bytes_per_token=prepared.bytes_per_token(VALIDATION)),
        ledger=prepared.ledger(config.block_size),
        seconds=time.monotonic() - started,
    )
    if config.output_file:
        write(Path(config.output_file), result.to_text())
    return result
