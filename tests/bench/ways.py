"""The ways to train a new DistilGPT2 that are compared: the guide's script, a bare loop, and clm.

Each trains on all of some blocks, `batch` in a step, in a precision, within a folder, and calls `done` after each step
and, with a name, after what else is timed.
"""

from functools import partial


def of(way: str, backend: str):
    """What trains in a way on a backend."""
    if way == "clm":
        return partial(clm, backend)
    return bare if way == "bare" else guide_pt if backend == "pt" else guide_tf


def new_blocks(blocks: int, length: int):
    """Blocks without meaning."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 50_257, (blocks, length)).astype(np.uint16)


def architecture():
    """That of DistilGPT2."""
    from transformers import GPT2Config

    return GPT2Config(n_layer=6)


def clm(backend, blocks, batch, precision, folder, done) -> None:
    """A training of clm, with an evaluation before its first step and after its last, and a checkpoint at its end."""
    from clm_core.backend import Evaluated, Model, Saved, StepDone
    from clm_core.registry import get_backend
    from clm_core.testing.tiny import training_job

    chosen = get_backend(backend)
    chosen.start(verbose=False)
    steps = len(blocks) // batch
    given = {"block_size": blocks.shape[1], "max_steps": steps, "eval_steps": steps, "save_steps": steps}
    given |= dict.fromkeys(("eval_strategy", "save_strategy"), "steps")
    given |= dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), batch)
    given |= {"bf16": precision == "bf16", "dtype": "bfloat16" if precision == "dtype" else "float32"}
    names = {StepDone: "step", Evaluated: "evaluation", Saved: "save"}
    model = Model(name_or_path=None, revision="main", architecture=architecture(), seed=0)

    def report(event) -> None:
        if type(event) in names:
            done(names[type(event)])

    chosen.train(training_job(chosen, folder, model=model, blocks=(blocks, blocks[:batch]), report=report, **given))


def guide_pt(blocks, batch, precision, folder, done) -> None:
    """The guide's PyTorch tab: Trainer with its defaults."""
    import torch
    from transformers import GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    class Marking(TrainerCallback):
        def on_step_end(self, *args, **kwargs) -> None:
            done()

        def on_save(self, *args, **kwargs) -> None:
            done("save")

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=len(blocks) // batch,
        per_device_train_batch_size=batch,
        bf16=precision == "bf16",
        use_cpu=not torch.accelerator.is_available(),
        report_to=[],
        save_steps=len(blocks) // batch,
        per_device_eval_batch_size=batch,
        disable_tqdm=True,
    )
    rows = rows_of(blocks)
    trainer = Trainer(GPT2LMHeadModel(architecture()), arguments, train_dataset=rows, callbacks=[Marking()])
    trainer.train()
    done("end")
    trainer.evaluate(rows[:batch])
    done("evaluation")


def rows_of(blocks) -> list[dict]:
    """As the guide's data set gives them."""
    import torch

    ids = [torch.from_numpy(block.astype("int64")) for block in blocks]
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row.clone()} for row in ids]


def bare(blocks, batch, precision, folder, done) -> None:
    """What one would write without a library."""
    import torch
    from transformers import GPT2LMHeadModel

    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    model = GPT2LMHeadModel(architecture()).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for start in range(0, len(blocks), batch):
        ids = torch.from_numpy(blocks[start : start + batch].astype("int64")).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = model(ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done()


def guide_tf(blocks, batch, precision, folder, done) -> None:
    """The guide's TensorFlow tab: `fit` with AdamWeightDecay."""
    import tensorflow as tf
    import tf_keras
    from transformers import AdamWeightDecay, TFGPT2LMHeadModel

    if precision == "bf16":
        tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    ids = blocks.astype("int64")
    data = tf.data.Dataset.from_tensor_slices({"input_ids": ids, "attention_mask": ids * 0 + 1, "labels": ids})
    model = TFGPT2LMHeadModel(architecture())
    model.compile(optimizer=AdamWeightDecay(learning_rate=2e-5, weight_decay_rate=0.01))
    marking = tf_keras.callbacks.LambdaCallback(on_batch_end=lambda batch, logs: done())
    model.fit(data.batch(batch), epochs=1, callbacks=[marking], verbose=0)
    done("end")
    model.save_pretrained(folder)
    done("save")
    model.evaluate(data.take(batch).batch(batch), verbose=0)  # Traced here, as before the first evaluation of a run.
    done("before")
    model.evaluate(data.take(batch).batch(batch), verbose=0)
    done("evaluation")
