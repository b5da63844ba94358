"""The verbs: prepare, train, evaluate and generate. Prepare the data, call the backend, write the results."""

import json
import platform
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clm_core import checkpoints, options, output
from clm_core.backend import Backend, BatchScored, EvaluationJob, Event, GenerationJob, Model, TrainingJob
from clm_core.config import EvaluateConfig, GenerateConfig, PrepareConfig, TokenizerOptions, TrainConfig
from clm_core.curves import CurveWriter
from clm_core.errors import DataError, ModelError, OptionError
from clm_core.prepared import TRAIN, VALIDATION, Prepared
from clm_core.preprocessing import Listener, Recipe, check_blocks
from clm_core.preprocessing import prepare as prepare_data
from clm_core.pretrained import check_fits, load_architecture, load_tokenizer, new_architecture
from clm_core.progress import Progress
from clm_core.recorder import Recorder
from clm_core.requests import DATA, RUN_FILE, Request
from clm_core.results import EvaluationResult, GenerationResult, PreparationResult, TrainingResult
from clm_core.schedule import Schedule
from clm_core.tokenization import digest_tokenizer, encoder

WAYS = {
    TRAIN: "--train-file or --dataset-name",
    VALIDATION: "--validation-file, or a --validation-split-percentage above 0",
}
"""Where the documents of a split can come from."""


def prepare(config: PrepareConfig, progress: Progress) -> PreparationResult:
    """Tokenize data into a folder that every backend reads."""
    folder = Path(config.output_dir) if config.output_dir else None
    prepared, reused = _prepare(config, load_tokenizer(config), progress, folder)
    check_blocks(prepared, config.block_size, list(prepared.manifest.splits))
    return PreparationResult(folder=prepared.folder, reused=reused, ledger=prepared.ledger(config.block_size))


def train(request: Request[TrainConfig], progress: Progress) -> TrainingResult:
    """Train a model, validate it, and write it with all that belongs to it to the output folder."""
    config, backend = request.config, request.backend
    folder = Path(config.output_dir) if config.output_dir else output.default_folder(config, backend.name)
    resume_from = checkpoints.find(Path(config.resume_from_checkpoint)) if config.resume_from_checkpoint else None
    if resume_from and config.overwrite_output_dir:
        raise OptionError("overwrite_output_dir and resume_from_checkpoint were both given: keep one of them")
    output.check(folder, overwrite=config.overwrite_output_dir, resume=resume_from is not None)
    if config.report_to != "none" and find_spec(config.report_to) is None:
        raise OptionError(f'report_to {config.report_to}: it is not installed: pip install "clm[{config.report_to}]"')

    tokenizer = load_tokenizer(config)
    model = _model_to_train(config, tokenizer)
    prepared, _ = _prepared_for(config, tokenizer, progress, need=[TRAIN])
    schedule = Schedule.from_config(
        config,
        blocks=prepared.count(TRAIN, config.block_size).blocks,
        data=prepared.manifest.splits[TRAIN].sha256,
    )
    start = checkpoints.check_continues(resume_from, schedule, backend=backend.name) if resume_from else 0

    output.create(folder)
    if not resume_from:
        output.clear(folder)
    output.write(folder / RUN_FILE, options.to_yaml(config, {backend.name: request.backend_options}))
    recorder = _recorder(config, prepared, schedule, folder, progress, resume_from, start)
    with output.staging(folder) as model_dir:
        job = TrainingJob(
            model=model,
            train=prepared.blocks(TRAIN, config.block_size),
            validation=prepared.blocks(VALIDATION, config.block_size) if prepared.has(VALIDATION) else None,
            schedule=schedule,
            config=config,
            options=request.backend_options,
            output_dir=folder,
            model_dir=model_dir,
            resume_from=resume_from,
            report=recorder,
        )
        with recorder.recording():
            backend.train(job)
        seconds = time.monotonic() - recorder.started
        tokenizer.save_pretrained(model_dir)
    result = TrainingResult(
        backend=backend.name,
        output_dir=folder,
        steps=recorder.step,
        epochs=recorder.step / schedule.steps_per_epoch,
        tokens_trained=recorder.tokens_trained,
        seconds=seconds,
        before=recorder.before,
        after=recorder.after,
        history=tuple(recorder.history),
        ledger=prepared.ledger(config.block_size),
        checkpoint=recorder.checkpoint,
        versions=_versions(backend),
    )
    output.write(folder / output.RESULTS_FILE, json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n")
    return result


def evaluate(request: Request[EvaluateConfig], progress: Progress) -> EvaluationResult:
    """Score the validation split."""
    config, backend = request.config, request.backend
    model = _existing_model(config, seed=config.seed)
    tokenizer = load_tokenizer(config)
    check_fits(model.architecture, tokenizer, config.block_size)
    prepared, _ = _prepared_for(config, tokenizer, progress, need=[VALIDATION])
    blocks = prepared.blocks(VALIDATION, config.block_size)
    started = time.monotonic()
    with progress.bar("evaluating", len(blocks), "block") as bar:

        def report(event: Event) -> None:
            if isinstance(event, BatchScored):
                bar.advance(event.blocks)

        score = backend.evaluate(EvaluationJob(model=model, blocks=blocks, config=config, report=report))
    from clm_core.metrics import compute

    result = EvaluationResult(
        backend=backend.name,
        model=str(model.name_or_path),
        metrics=compute(score, bytes_per_token=prepared.bytes_per_token(VALIDATION)),
        ledger=prepared.ledger(config.block_size),
        seconds=time.monotonic() - started,
    )
    if config.output_file:
        output.write(Path(config.output_file), json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n")
    return result


def generate(request: Request[GenerateConfig], prompt: str) -> GenerationResult:
    """Continue a prompt."""
    config, backend = request.config, request.backend
    model = _existing_model(config, seed=config.seed)
    tokenizer = load_tokenizer(config)
    check_fits(model.architecture, tokenizer, block_size=1)
    ids = _prompt_ids(tokenizer, prompt)
    _check_room(model.architecture, len(ids), config.max_new_tokens)
    job = GenerationJob(model=model, prompt=tuple(ids), eos_token_id=tokenizer.eos_token_id, config=config)
    new = list(backend.generate(job))
    return GenerationResult(
        backend=backend.name,
        model=str(model.name_or_path),
        prompt=prompt,
        completion=tokenizer.decode(new, skip_special_tokens=True),
        tokens=len(new),
    )


def _model_to_train(config: TrainConfig, tokenizer: Any) -> Model:
    scratch = [name for name in ("config_name", "model_type", "config_overrides") if getattr(config, name)]
    if config.model_name_or_path:
        if scratch:
            raise OptionError(
                f"{' and '.join(scratch)} say to train from scratch, model_name_or_path to start from "
                f"{config.model_name_or_path}: keep one of them"
            )
        model = _existing_model(config, seed=config.seed)
    else:
        architecture = new_architecture(config, tokenizer)
        model = Model(name_or_path=None, revision="main", architecture=architecture, seed=config.seed)
    check_fits(model.architecture, tokenizer, config.block_size)
    return model


def _existing_model(config: TokenizerOptions, *, seed: int) -> Model:
    return Model(
        architecture=load_architecture(config),
        name_or_path=config.model_name_or_path,
        revision=config.model_revision,
        seed=seed,
    )


def _prepared_for(
    config: TrainConfig | EvaluateConfig, tokenizer: Any, progress: Progress, *, need: list[str]
) -> tuple[Prepared, bool]:
    """Data for a verb, with at least one block in each split that it needs or would use."""
    if config.prepared:
        if others := [name for name in DATA if name != "prepared" and getattr(config, name)]:
            raise OptionError(f"prepared and {' and '.join(others)} were both given: choose one source of data")
        prepared, reused = Prepared.open(Path(config.prepared)), True
        prepared.verify()
        if prepared.manifest.tokenizer != digest_tokenizer(tokenizer):
            raise ModelError(
                f"{config.prepared} was prepared with another tokenizer than the model's: prepare it again"
            )
    else:
        prepared, reused = _prepare(config, tokenizer, progress, None)
    for split in need:
        if not prepared.has(split):
            raise DataError(f"there are no documents for {split}: give {WAYS[split]}")
    used = [split for split in prepared.manifest.splits if split in need or TRAIN in need]
    check_blocks(prepared, config.block_size, used)
    return prepared, reused


def _prepare(config: Any, tokenizer: Any, progress: Progress, folder: Path | None) -> tuple[Prepared, bool]:
    with progress.bar("preparing", None, "document") as bar:
        prepared, reused = prepare_data(
            Recipe.make(config, tokenizer),
            folder,
            workers=config.preprocessing_num_workers,
            overwrite=config.overwrite_cache,
            listener=Listener(advance=bar.advance, say=progress.say),
        )
    progress.say(_prepared_line(prepared, config.block_size, reused))
    return prepared, reused


def _prepared_line(prepared: Prepared, block_size: int, reused: bool) -> str:
    ledger = prepared.ledger(block_size)
    documents = ledger["documents"]
    parts = [
        f"{split}: {counts['documents']:,} documents, {counts['tokens'] + counts['eos_added']:,} tokens, "
        f"{counts['blocks']:,} blocks of {block_size}, {counts['tokens_dropped']} tokens dropped"
        for split, counts in ledger["splits"].items()
    ]
    how = "found prepared, nothing tokenized" if reused else "prepared"
    left_out = "".join(f", {documents[name]:,} {name}" for name in ("empty", "skipped") if documents[name])
    return f"{how}: {documents['read']:,} documents{left_out}; " + "; ".join(parts)


def _recorder(
    config: TrainConfig,
    prepared: Prepared,
    schedule: Schedule,
    folder: Path,
    progress: Progress,
    resume_from: Path | None,
    start: int,
) -> Recorder:
    validated = prepared.has(VALIDATION)
    return Recorder(
        schedule,
        folder,
        progress,
        block_size=config.block_size,
        validation_blocks=prepared.count(VALIDATION, config.block_size).blocks if validated else 0,
        bytes_per_token=prepared.bytes_per_token(VALIDATION) if validated else 1.0,
        curves=CurveWriter(folder / output.LOGS) if config.report_to == "tensorboard" else None,
        resume_from=resume_from,
        start_step=start,
    )


def _prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The ids of a prompt, open at the end: what the tokenizer's template closes a text with is taken off again."""
    ids: list[int] = encoder(tokenizer)([prompt]).ids.tolist()
    if len(ids) > 1 and ids[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        ids = ids[:-1]
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if not ids and start is None:
        raise OptionError("the prompt is empty, and this tokenizer has no token to begin a text with")
    return ids or [start]


def _check_room(architecture: Any, prompt: int, new: int) -> None:
    positions = getattr(architecture, "max_position_embeddings", None)
    if positions is None or prompt + new <= positions:
        return
    if prompt >= positions:
        raise OptionError(f"the prompt has {prompt} tokens, the model {positions} positions: use a shorter prompt")
    raise OptionError(
        f"max_new_tokens {new} and the {prompt} tokens of the prompt are above the {positions} positions of the model: "
        f"use --max-new-tokens {positions - prompt}"
    )


def _versions(backend: Backend) -> dict[str, str]:
    from packaging.requirements import Requirement

    names = ["clm", "transformers", "tokenizers", "numpy", *(Requirement(line).name for line in backend.requires)]
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
