"""Makes sure that the options of a training go together, before its data is prepared; TensorFlow is not imported."""

from clm_core.backend import Setup
from clm_core.errors import OptionError
from clm_core.models.architectures import asks_for_more_loss
from clm_core.models.faults import cannot_add_to_loss
from clm_core.optimizer import is_adamw


def check(setup: Setup) -> None:
    """Make sure that a training can be as it is asked for, before its data is prepared.

    Raises:
        ModelError: the model has a loss that is not computed.
        OptionError: options do not go together, or not with the devices.
    """
    if asked := asks_for_more_loss(setup.model.architecture):
        raise cannot_add_to_loss(asked, "transformers' TensorFlow class")
    if setup.options.guide:
        _check_guide(setup)
    if setup.options.jit_compile and setup.world.size > 1:
        raise OptionError("tf jit_compile: XLA compiles a step for one device only: leave it out, or use one device")


def _check_guide(setup: Setup) -> None:
    config = setup.config
    if setup.model.adapter:
        raise OptionError("tf guide: the guide trains the whole model: leave it out, or lora_r")
    if setup.world.size > 1:
        raise OptionError("tf guide: the guide trains on one device: leave it out, or use one device")
    if not is_adamw(config.optim):
        raise OptionError(f"tf guide: optim {config.optim}: the guide trains with AdamW: leave one of them out")
    if not setup.options.decay_all:
        raise OptionError("tf guide: transformers' AdamWeightDecay decays all variables: give --tf-decay-all")
    if config.embedding_learning_rate is not None:
        raise OptionError(
            "tf guide: embedding_learning_rate: its optimizer has one rate for all: leave one of them out"
        )
    if setup.resume_from is not None:
        raise OptionError(
            "tf guide: the order of model.prepare_tf_dataset cannot be resumed: start again, or leave --tf-guide out"
        )
    if config.keeps_best or config.max_train_time:
        names = ("load_best_model_at_end", "early_stopping_patience", "max_train_time")
        name = next(name for name in names if getattr(config, name))
        raise OptionError(f"tf guide: {name} needs checkpoints, and it writes none: leave one of them out")
    if config.save_strategy != "no":
        raise OptionError(
            f"tf guide: save_strategy {config.save_strategy}: it writes no checkpoints, use --save-strategy no; with "
            "--push-to-hub each epoch's model is uploaded"
        )
