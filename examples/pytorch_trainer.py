"""For people who drive `Trainer` themselves: the one that clm configures, with your callback.

python examples/pytorch_trainer.py
"""

import sys
from pathlib import Path

from transformers import AutoTokenizer, GPT2Config, TrainerCallback

import clm_core as clm
import clm_pt
from clm_core import sample

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
tokenizer = AutoTokenizer.from_pretrained(sample.TOKENIZER)
data = clm.Prepared.open(clm.prepare(block_size=128).folder)

config = clm.TrainConfig(max_steps=steps, learning_rate=3e-3, warmup_steps=steps // 10, save_strategy="no")
architecture = GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=128, n_layer=2, n_head=4)
train = data.blocks("train", 128)

trainer = clm_pt.create_trainer(
    clm.TrainingJob(
        model=clm.Model(name_or_path=None, revision="main", architecture=architecture, seed=config.seed),
        train=train,
        validation=data.blocks("validation", 128),
        schedule=clm.Schedule.from_config(config, blocks=len(train)),
        config=config,
        options=clm_pt.PyTorchOptions(),
        output_dir=Path("trainer-run"),
        model_dir=Path("trainer-run"),
        resume_from=None,
        report=lambda event: None,
    )
)


class Shout(TrainerCallback):
    """Any callback of transformers works."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Print what Trainer logs."""
        print(state.global_step, logs)


trainer.add_callback(Shout)
trainer.train()
print(trainer.evaluate())
