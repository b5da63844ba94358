"""Which update each parameter gets: the optimizers by name, as rules that backends carry out alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from clm_core.config import OptimizationOptions
from clm_core.models.matrices import is_matrix_of_layer
from clm_core.optimizer.adafactor import adafactor, adafactor_state
from clm_core.optimizer.adamw import adamw
from clm_core.optimizer.arrays import Array, Functions
from clm_core.optimizer.muon import muon

Shape: TypeAlias = tuple[int, ...]

ADAMW, ADAFACTOR, MUON = "adamw_torch", "adafactor", "muon"
"""The values of `optim`."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What the updates of a step have in common, and how often one parameter is updated with this one."""

    learning_rate: Any
    updates: Any
    corrections: tuple[Any, Any]
    """What `bias_corrections(updates, config)` returns, for AdamW."""
    config: OptimizationOptions
    xp: Functions


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a parameter is updated, and what is kept of it between updates."""

    state: Callable[[Shape], dict[str, Shape]]
    """The shape of each part of the state of a parameter of some shape; all parts are float32, and 0 at first."""
    update: Callable[[Array, Array, Mapping[str, Array], Step, bool], tuple[Array, dict[str, Array]]]
    """Returns the parameter and its state after an update; takes them, the gradient, and whether it decays."""
    elementwise: bool = False
    """Whether a part of a parameter can be updated without the rest."""


def rule_of(optim: str, name: str, shape: Shape) -> Rule:
    """The rule for the parameter that PyTorch calls `name` in files, where it has this shape."""
    if is_adamw(optim) or (optim == MUON and not is_matrix_of_layer(name, len(shape))):
        return OF_ADAMW
    return {ADAFACTOR: OF_ADAFACTOR, MUON: OF_MUON}[optim]


def is_adamw(optim: str) -> bool:
    """Whether a value of `optim` means AdamW, which has two names."""
    return optim in (ADAMW, "adamw")


def _by_adamw(
    parameter: Array, gradient: Array, state: Mapping[str, Array], step: Step, decays: bool
) -> tuple[Array, dict[str, Array]]:
    rates = {"learning_rate": step.learning_rate, "corrections": step.corrections}
    parameter, first, second = adamw(
        *(parameter, gradient, state["m"], state["v"]), **rates, config=step.config, decays=decays
    )
    return parameter, {"m": first, "v": second}


def _by_adafactor(
    parameter: Array, gradient: Array, state: Mapping[str, Array], step: Step, decays: bool
) -> tuple[Array, dict[str, Array]]:
    of_step = {"learning_rate": step.learning_rate, "updates": step.updates, "config": step.config, "xp": step.xp}
    return adafactor(parameter, gradient, state, **of_step, decays=decays)


def _by_muon(
    parameter: Array, gradient: Array, state: Mapping[str, Array], step: Step, decays: bool
) -> tuple[Array, dict[str, Array]]:
    of_step = {"learning_rate": step.learning_rate, "config": step.config, "xp": step.xp}
    return muon(parameter, gradient, state, **of_step, decays=decays)


OF_ADAMW = Rule(state=lambda shape: {"m": shape, "v": shape}, update=_by_adamw, elementwise=True)
OF_ADAFACTOR = Rule(state=adafactor_state, update=_by_adafactor)
OF_MUON = Rule(state=lambda shape: {"momentum": shape}, update=_by_muon)
