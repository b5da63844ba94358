"""Makes sure that the options of a training go together, before its data is prepared; Keras is not imported."""

from clm_core.backend import Setup
from clm_core.errors import OptionError
from clm_core.models.architectures import asks_for_more_loss
from clm_core.models.faults import cannot_add_to_loss
from clm_tf.keras3.families import layout


def check(setup: Setup) -> None:
    """Make sure that a training can be as it is asked for, before its data is prepared.

    Raises:
        ModelError: the model has a loss that is not computed.
        OptionError: an option, or the model, does not go with several devices.
    """
    asked = asks_for_more_loss(setup.model.architecture)
    if asked and not layout(setup.model.architecture).balance_weight:
        raise cannot_add_to_loss(asked, "backend keras")
    if setup.world.size == 1:
        return
    if asked:
        raise OptionError(f"{asked}: backend keras adds to the loss on one device only: use one, or --backend pt")
    if setup.options.jit_compile:
        raise OptionError("keras jit_compile: XLA compiles a step for one device only: leave it out, or use one device")
