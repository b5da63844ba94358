"""Makes sure that a training continues what its checkpoint began: the same data, in the same order, with steps left."""

from pathlib import Path

from clm_core.counts import with_noun
from clm_core.errors import ModelError
from clm_core.marker import read
from clm_core.optimizer.state import FILE as MOMENTS
from clm_core.paths import in_command
from clm_core.schedule import Schedule


def check_continues(checkpoint: Path, schedule: Schedule, *, backend: str, data: str = "the data") -> int:
    """Make sure that a training can resume from the checkpoint, and return the checkpoint's step.

    `data` names the option that says where the text is.

    Raises:
        ModelError: the checkpoint is from a backend that writes no moments for others, its blocks came in another
            order, or it has made more steps than the training is to have.
    """
    record = read(checkpoint)
    if record["backend"] != backend and not (checkpoint / MOMENTS).is_file():
        raise ModelError(
            f"{checkpoint} was written by backend {record['backend']}, which writes no {MOMENTS} for others: resume "
            f"with --backend {record['backend']}, or start a new training from its weights with --model-name-or-path "
            f"{in_command(checkpoint)}"
        )
    for key, value in schedule.identity().items():
        if record.get(key) != value and key == "data":
            raise ModelError(f"{checkpoint} was trained on other text than there is in {data} now: use the same")
        if record.get(key) != value and key == "order":
            raise ModelError(
                f"{checkpoint} was written by an earlier clm, which ordered {with_noun(schedule.blocks, 'block')} "
                "differently: resume with that version, or start a new training from its weights with "
                f"--model-name-or-path {in_command(checkpoint)}"
            )
        if record.get(key) != value:
            way = f"give --train-batch-size {record.get(key)}" if key == "train_batch_size" else "use the same"
            raise ModelError(f"{checkpoint} was trained with {key} {record.get(key)}, this run has {value}: {way}")
    step: int = record["step"]
    if step > schedule.total_steps:
        raise ModelError(
            f"{checkpoint} has made {with_noun(step, 'step')}, more than the {schedule.total_steps} of this training: "
            "raise --max-steps, --num-train-epochs or --max-trained-tokens, or resume from an earlier checkpoint"
        )
    return step
