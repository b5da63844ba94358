"""The contract between clm and a framework: what a backend implements, and the data that goes in and out.

No tensor crosses this interface: blocks of token ids go in as NumPy arrays; counts, sums and token ids come
back, or logits as a NumPy array where backends are compared. A backend speaks one framework and
decides nothing that the core can decide: the order of the blocks, the learning rates, when to evaluate and
when to save all come with the job.

A distribution makes its backend known by an entry point in the group `clm.backends`. The module that it names is
loaded to print help, so it imports no framework at module level: a backend has a second module for that, or, in
one file, imports its framework within functions.

Train, step by step, with what the core has for it. Weights, gradients and moments are float32 arrays
under the names and in the shapes that the parameters have in transformers' PyTorch class:

1. `clm_core.weights.load(job.source, shapes, ...)` reads the weights of the model or checkpoint, or
   draws the first ones of a new model, the same for every backend.
2. `clm_core.checkpoints.read_moments(job.resume_from, shapes)` reads AdamW's moments, if the job resumes.
3. `job.evaluate(step, score)`, first at `job.first_step` and then after each step, calls your `score()` if it is time;
   that returns the score, such as that of `clm_core.scoring.score_in_batches(job.validation, ...)`.
4. `job.schedule.steps(job.first_step)` gives each step with the rows of its batches. The loss of a step is
   the mean over all its tokens, so that each batch counts by its rows. A backend that declares `masks` takes the mean
   over the tokens that count: `labels_at(job.train, rows)` says which, and a batch counts by how many it has of them.
5. `clm_core.optimizer.adamw` says what an update is, with `job.schedule.learning_rates()[step - 1]` and, for each
   parameter, `clm_core.models.decay.decays`; then `job.report(StepDone(...))`. The dropout of a step is drawn from a
   seed that follows from the schedule's and the step, so that no checkpoint keeps a random state.
6. `clm_core.checkpoints.save(job, step, write)` if `job.saves_at(step)`: your `write(folder)` writes what 7 does, and
   `clm_core.checkpoints.write_moments(folder, ...)`.
7. `clm_core.weights.save(weights, job.model.architecture, job.model_dir)` writes the model, and reads it back; where
   `clm_core.checkpoints.take_last_model(job)`, the checkpoint of the last step has it, and it is there already.

Options that do not go together, each of which is supported, are rejected by `check(setup)`, which the core calls before
it prepares the data. A job is a `Setup` as well, and `train` begins with the same check.

A backend around a framework's own training loop takes from these what fits. `clm_core.sampling.choose` chooses the
next token. `clm_core.models.causality.check_causal` makes sure that a model attends to no token that it predicts.

Several devices. `job.world` says which of them this process has; the default is one device and one process. A backend
that trains on more says how in `parallel`, and then, where `job.world.size` is above 1:

- Before the first step, the processes give each other `job.identity()`, and each calls `check_same` with all of them.
- `job.schedule.shares(rank, job.first_step)` has a device's batches, instead of `steps`: as many at a step for each,
  some of them empty. `job.schedule.seed_at(step, rank)` seeds what it draws at random.
- `report` is called in every process, with the numbers of the whole step, so that all of them decide alike. Before it,
  where `job.stop.together`, the highest `job.stop.wish` of all processes goes to `job.stop.agree` in each of them. It
  does so after each batch of an evaluation too: `together` of `score_in_batches`, which shares the batches out.
- Only the process that `leads` writes: it calls `clm_core.checkpoints.save`; the others wait, and report `Saved`.

The core itself communicates with no other process.
"""

from clm_core.backend.adapter import Adapter
from clm_core.backend.backend import Backend, NoOptions
from clm_core.backend.blocks import IGNORED, Blocks, MaskedBlocks, count_predicted, labels_at
from clm_core.backend.events import BatchScored, Evaluated, Event, Report, Saved, Score, StepDone
from clm_core.backend.jobs import EvaluationJob, GenerationJob, Logits, Model, Setup, TrainingJob
from clm_core.backend.world import ALONE, World, check_same

__all__ = [
    "ALONE",
    "IGNORED",
    "Adapter",
    "Backend",
    "BatchScored",
    "Blocks",
    "Evaluated",
    "EvaluationJob",
    "Event",
    "GenerationJob",
    "Logits",
    "MaskedBlocks",
    "Model",
    "NoOptions",
    "Report",
    "Saved",
    "Score",
    "Setup",
    "StepDone",
    "TrainingJob",
    "World",
    "check_same",
    "count_predicted",
    "labels_at",
]
