"""Makes sure that the options of a training go together, before its data is prepared; only FSDP2 imports PyTorch."""

from clm_core.backend import Setup
from clm_core.errors import ModelError, OptionError
from clm_core.optimizer import is_adamw


def check(setup: Setup) -> None:
    """Make sure that a training can be as it is asked for, before its data is prepared.

    Raises:
        OptionError: options do not go together, or not with the model or the devices.
    """
    config, options = setup.config, setup.options
    if options.guide:
        _check_guide(setup)
    if config.has_bfloat16_weights and setup.world.size > 1 and not options.fsdp:
        raise OptionError(
            "dtype bfloat16: DistributedDataParallel would add up gradients that each process has rounded: give "
            "--pt-fsdp with it, or --bf16 in its place"
        )
    if options.fsdp:
        _check_can_be_sharded(setup)


def _check_guide(setup: Setup) -> None:
    if not is_adamw(setup.config.optim):
        raise OptionError(f"pt guide and optim {setup.config.optim} cannot be combined: the guide trains with AdamW")
    if setup.world.size > 1:
        raise OptionError(f"pt guide: the guide trains in one process, and there are {setup.world.size}: start one")
    if setup.options.fsdp:
        raise OptionError("pt guide and pt fsdp cannot be combined: the guide's script shards nothing")
    if setup.config.has_bfloat16_weights:
        raise OptionError("pt guide and dtype bfloat16 cannot be combined: the guide's script has float32 weights")


def _check_can_be_sharded(setup: Setup) -> None:
    """As far as the architecture tells: once it is loaded, a model is looked at again, with its adapter."""
    from clm_pt.modeling import without_weights
    from clm_pt.sharding import check_can_be_sharded

    try:
        model = without_weights(setup.model.architecture)
    except ModelError:  # Loading says why, unless the class only needs its weights to be built.
        return
    check_can_be_sharded(model, in_bfloat16=setup.config.has_bfloat16_weights)
