"""What a command prints at its end: the metrics, what was written, and what to run next."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clm_core.checkpoints import backend_of, list_complete
from clm_core.config import PrepareConfig, PreprocessingOptions, TrainConfig
from clm_core.counts import with_noun
from clm_core.data.manifest import AGAIN, documents_read
from clm_core.durable.disk_errors import shown as size
from clm_core.hub.pushing import command_for
from clm_core.marker import PREFIX, faults
from clm_core.options import shown
from clm_core.options.layers import DATA
from clm_core.options.recorded import REPEAT
from clm_core.paths import in_command
from clm_core.record import HISTORY_FILE, LOGS, RESULTS_FILE, RUN_FILE
from clm_core.registry import command_with
from clm_core.results import (
    EvaluationResult,
    GenerationResult,
    InspectionResult,
    MergeResult,
    PreparationResult,
    Publication,
    TrainingResult,
    VerificationResult,
    VerifiedPart,
)
from clm_core.runs.start import begun_from
from clm_core.sample import PROMPT

BLOCK_SIZE = PreprocessingOptions().block_size
"""The default of a training."""


def of_training(config: TrainConfig, result: TrainingResult, completion: GenerationResult | None) -> str:
    """The summary of a training, with a completion where the sample was trained on."""
    folder = in_command(result.output_dir)
    command = f"clm --backend {result.backend}"
    prompt = PROMPT if on_sample(config) else "Once upon a time"
    lines = [
        f"trained     {with_noun(result.steps, 'step')}, {result.epochs:.2f} epochs, "
        f"{with_noun(result.tokens_trained, 'token')} in {result.seconds:.0f} s{_memory(result)}",
        *_ending(config, result),
        *(_before_and_after(result) or _not_scored(result)),
        *(
            [f"completion  {completion.prompt}{completion.completion.rstrip()}"]
            if completion and completion.completion.strip()
            else []
        ),
        f"written     {folder}: {', '.join(_written(config, result))}",
        f"next        {command} generate --model-name-or-path {folder} --max-new-tokens 40 {shlex.quote(prompt)}",
        *([f"            {command} evaluate --model-name-or-path {folder}"] if result.after else []),
        *([f"to publish  {command_for(result.output_dir)}"] if config.hub_model_id and not result.hub else []),
    ]
    if on_sample(config):
        lines.append(f"the guide   {command} train --config eli5   (DistilGPT2 on ELI5, from the Hub)")
    return "\n".join([*lines, *(of_publication(result.hub) if result.hub else [])])


def of_publication(done: Publication) -> list[str]:
    """The outcome of an upload; the last line is the command that continues it, if it is not complete."""
    at = done.repository if done.revision == "main" else f"{done.repository}, branch {done.revision}"
    if done.state == "uploaded":
        return [f"published   {done.url} (commit {(done.commit or '')[:8]})"]
    why = [f"failed      {done.error}"] if done.error else []
    return [*why, f"not on the Hub yet: {at}; to upload it:", f"            {done.command}"]


def of_evaluation(result: EvaluationResult) -> str:
    """The summary of an evaluation."""
    metrics = result.metrics
    return "\n".join(
        [
            f"loss           {metrics['loss']:.4f} nats per token",
            f"perplexity     {metrics['perplexity']:,.2f}",
            f"accuracy       {metrics['accuracy']:.2%}",
            f"bits per byte  {metrics['bits_per_byte']:.4f}",
            f"tokens scored  {metrics['tokens_scored']:,} in {result.seconds:.1f} s",
        ]
    )


def of_merging(result: MergeResult) -> str:
    """The summary of a merge."""
    folder = in_command(result.folder)
    return "\n".join(
        [
            f"written     {folder}: {result.base} with {result.adapter} in it, {with_noun(result.tensors, 'tensor')}",
            f"next        {command_with()} generate --model-name-or-path {folder} --max-new-tokens 40 "
            "'Once upon a time'",
        ]
    )


def of_preparation(config: PrepareConfig, result: PreparationResult, backend: str | None = None) -> str:
    """The summary of a preparation."""
    train = f"{command_with(backend)} train --prepared"
    folder = in_command(result.folder)
    if config.shard:
        follows = "clm prepare --merge FOLDER-OF-EACH-SHARD --output-dir DIR, once all shards are prepared"
    elif on_sample(config) and not config.merge:
        follows = f"{train} {folder} --config sample"
    elif config.model_name_or_path:
        follows = f"{train} {folder} --model-name-or-path {in_command(config.model_name_or_path)}"
    else:
        tokenizer = in_command(result.tokenizer_name)
        follows = f"{train} {folder} --model-type gpt2 --tokenizer-name {tokenizer}"
    if not config.shard and (size := _block_size(config, result.ledger)) != BLOCK_SIZE:
        follows += f" --block-size {size}"
    lines = [f"{'cached ' if result.reused else 'written'}  {folder}", f"next     {follows}"]
    return "\n".join([*lines, *(of_publication(result.hub) if result.hub else [])])


def of_inspection(result: InspectionResult) -> str:
    """The summary of prepared data."""
    tokenizer = f"tokenizer {result.tokenizer_name or '?'}, by {result.engine}, {np.dtype(result.dtype).name}"
    lines = [
        f"{result.folder}{': every byte is as it was written' if result.verified else ''}",
        f"{tokenizer}; {', '.join(_options(result.options))}",
        documents_read(result.ledger["documents"]),
    ]
    for split, counts in result.ledger["splits"].items():
        lines += _split_lines(split, counts, result.document_lengths[split], result.ledger["block_size"])
    return "\n".join(lines + (_block_lines(result.block) if result.block else []))


def of_verification(result: VerificationResult) -> str:
    """Which parts are as they were written, and what to do about those that are not."""
    lines = [line for part in result.parts for line in _part_lines(part)]
    if result.earlier:
        lines[0] = (
            f"unfinished  {result.folder}: the training has made no step, and the run that it was to replace waits in "
            f"{result.earlier}"
        )
    return "\n".join([*lines, *_way_out(result)])


def on_sample(config: Any) -> bool:
    """Whether no data is named, so that it is the built-in sample."""
    return not any(getattr(config, name, None) for name in DATA)


def _memory(result: TrainingResult) -> str:
    used = f", {result.mfu:.0%} of the peak" if result.mfu else ""
    return used + (f", with {size(result.peak_memory_bytes)} of memory" if result.peak_memory_bytes else "")


def _ending(config: TrainConfig, result: TrainingResult) -> Iterator[str]:
    """What ended the training before its last step, and which checkpoint was the best."""
    if result.stopped_by == "early_stopping":
        by = f" by more than {config.early_stopping_threshold:g}" if config.early_stopping_threshold else ""
        patience = config.early_stopping_patience
        in_a_row = "the last evaluation was" if patience == 1 else f"{patience} evaluations in a row were"
        yield f"ended       early: {in_a_row} not better{by} than the best before"
    if result.stopped_by == "time":
        again = f"clm --backend {result.backend} train --resume-from-checkpoint {in_command(result.output_dir)}"
        yield f"ended       by --max-train-time {config.max_train_time}; to resume: {again}"
    if best := result.best:
        figure = f"{best['metric'].replace('_', ' ')} {best['value']:.4f}"
        of_run = ", whose model the run has" if config.load_best_model_at_end else ""
        yield f"best        {PREFIX}{best['step']}, with {figure}{of_run}"


def _written(config: TrainConfig, result: TrainingResult) -> list[str]:
    checkpoints = len(list_complete(result.output_dir))
    return [
        *("adapter" if config.lora_r else "model", "tokenizer", RUN_FILE, RESULTS_FILE, HISTORY_FILE),
        *([LOGS] if config.report_to == "tensorboard" else []),
        *([with_noun(checkpoints, "checkpoint")] if checkpoints else []),
    ]


def _block_size(config: PrepareConfig, ledger: dict[str, Any]) -> int:
    """The block size for the training suggested next: as given, or the largest that every split has a block of."""
    tokens = [counts["tokens_kept"] + counts["tokens_dropped"] for counts in ledger["splits"].values()]
    return config.block_size if min(tokens) >= config.block_size else max(2, min(tokens))


def _options(options: dict[str, Any]) -> Iterator[str]:
    """The options that the data was prepared with, without limits that were not set."""
    return (f"{name} {shown(value)}" for name, value in options.items() if value is not None)


def _split_lines(split: str, counts: dict[str, int], lengths: dict[str, Any], block_size: int) -> list[str]:
    most = max((bar["documents"] for bar in lengths["histogram"]), default=0)
    return [
        "",
        f"{split}: {with_noun(counts['documents'], 'document')}, {with_noun(counts['tokens'], 'token')} + "
        f"{counts['eos_added']:,} EOS = {counts['tokens_kept']:,} in {with_noun(counts['blocks'], 'block')} of "
        f"{block_size} + {counts['tokens_dropped']:,} dropped",
        *_masked_lines(counts),
        f"tokens of a document: {lengths['shortest']:,} to {lengths['longest']:,}, median {lengths['median']:,.0f}, "
        f"mean {lengths['mean']:,.1f}",
        *(
            f"{bar['from']:>9,} - {bar['to']:<9,} {bar['documents']:>9,} {'#' * round(40 * bar['documents'] / most)}"
            for bar in lengths["histogram"]
            if bar["documents"]
        ),
    ]


def _masked_lines(counts: dict[str, int]) -> list[str]:
    """Of which tokens the loss is, if not of all."""
    if "masked" not in counts:
        return []
    none = counts["blocks_masked"]
    left_out = f"; {with_noun(none, 'block')} dropped in which none counts" if none else ""
    return [
        f"the loss is that of completions: {with_noun(counts['prompt'], 'token')} of prompts, "
        f"{counts['completion']:,} of completions; {counts['masked']:,} of the "
        f"{with_noun(counts['tokens_kept'], 'token')} in blocks "
        f"{'is' if counts['masked'] == 1 else 'are'} masked{left_out}"
    ]


def _block_lines(block: dict[str, Any]) -> list[str]:
    lines = ["", f"block {block['number']} of {block['split']}:"]
    for piece in block["pieces"]:
        lines.append(f"--- document {piece['document']}")
        if "parts" not in piece:
            lines.append(piece["text"])
        for part in piece.get("parts", ()):
            lines += ["--- counts" if part["counts"] else "--- masked", part["text"]]
    return lines


def _part_lines(part: VerifiedPart) -> list[str]:
    if part.faults:
        return [f"damaged     {part.folder}: {part.faults[0]}", *(f"            {fault}" for fault in part.faults[1:])]
    said = {
        "whole": f"{with_noun(part.files, 'file')}, {with_noun(part.bytes, 'byte')}, as they were written",
        "unproved": "without checksums, because an earlier clm wrote it: not proved, and not known to be damaged",
        "unfinished": "the training has not finished, and only its checkpoints have checksums",
    }
    return [f"{part.state:<11} {part.folder}: {said[part.state]}"]


def _way_out(result: VerificationResult) -> list[str]:
    """The command that replaces what is damaged, or ends what is unfinished."""
    first = result.parts[0]
    if result.earlier:
        return _resuming(result, "any training there puts the earlier run back before it begins")
    if result.kind == "prepared data":
        return [f"next        {AGAIN}"] if first.faults else []
    if result.kind == "checkpoint" or first.state in ("whole", "unproved"):
        return []
    if any(fault.startswith(RUN_FILE) for fault in first.faults):
        return [f"next        {REPEAT}"]
    if left := _left(result):
        return _resuming(result, f"from {left[-1].name}")
    if begun := begun_from(result.folder):
        return _resuming(result, f"from {begun}")
    if (result.folder / RUN_FILE).is_file() and not list_complete(result.folder):
        return _resuming(result, "from the beginning")
    folder = in_command(result.folder)
    return [f"next        no checkpoint is left: train again, with --output-dir {folder} --overwrite-output-dir"]


def _resuming(result: VerificationResult, how: str) -> list[str]:
    """The command that resumes a run, of which a part may lie where the earlier run waits, or in another run."""
    begun = begun_from(result.earlier or result.folder)
    whole = _left(result) or ([begun] if begun and not faults(begun) else [])
    start = command_with(backend_of(whole[-1])) if whole else "clm"  # It asks which one, and takes none for granted.
    return [f"next        {start} train --resume-from-checkpoint {in_command(result.folder)}   ({how})"]


def _left(result: VerificationResult) -> list[Path]:
    """The checkpoints that a training can be resumed from, oldest first."""
    checkpoints = (part for part in result.parts if part.kind == "checkpoint")
    return [part.folder for part in checkpoints if part.state in ("whole", "unproved")]


def _not_scored(result: TrainingResult) -> list[str]:
    """Of a training whose time was up between two evaluations, the perplexity of the last one, and what to do."""
    scored = [line for line in result.history if "eval_loss" in line]
    if result.stopped_by != "time" or not scored:
        return []
    last, folder = scored[-1], in_command(result.output_dir)
    when = "before training" if last["step"] == 0 else f"at step {last['step']:,}"
    return [
        f"perplexity  not known after step {result.steps:,}, as the time was up between two evaluations; "
        f"{when}: {last['eval_perplexity']:,.2f}",
        f"            to score the model: clm --backend {result.backend} evaluate --model-name-or-path {folder}",
    ]


def _before_and_after(result: TrainingResult) -> list[str]:
    if not result.after:
        return []
    metrics = result.after
    before = f" (before: {result.before['perplexity']:,.2f})" if result.before else ""
    scored = f"loss {metrics['loss']:.4f} on {with_noun(int(metrics['tokens_scored']), 'token')}"
    return [f"perplexity  {metrics['perplexity']:,.2f}{before}, {scored}"]
