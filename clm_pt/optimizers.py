"""Adafactor and Muon for PyTorch, by the core's definitions, whatever a parameter is cut up into."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from clm_core.config import OptimizationOptions
from clm_core.models.file_names import shapes_in_files
from clm_core.optimizer import Rule, Step, bias_corrections, rule_of
from clm_pt.adapters import parameters
from clm_pt.sharding import like, own_part, whole


@dataclass(frozen=True)
class Layout:
    """How a parameter is updated: as the tensors that it is in files, of one shape and by one rule."""

    rule: Rule
    count: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, optim: str, name: str, shape: tuple[int, ...], model_type: str) -> "Layout":
        """The layout of a parameter of this name and shape in memory."""
        in_files = shapes_in_files(name, shape, model_type)
        first, own = next(iter(in_files.items()))
        return cls(rule_of(optim, first, own), len(in_files), own)

    def state_shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The shape of each part of the state of all tensors together, of a parameter of this shape in memory."""
        parts = self.rule.state(self.shape)
        return {
            part: shape if own == self.shape else (self.count, *own) if self.count > 1 else own
            for part, own in parts.items()
        }


class DefinedOptimizer(torch.optim.Optimizer):
    """Updates each parameter by the core's rule for it; the state is float32, its parts are named as in checkpoints.

    Of a parameter that is cut up by FSDP2, the parts of its shape are cut up too, and the others are whole everywhere.
    A group says the learning rate, `lr`, and whether its parameters decay: where `weight_decay` is not 0.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], model: PreTrainedModel, config: OptimizationOptions) -> None:
        super().__init__(groups, {})
        self.config = config
        self._layouts = {
            parameter: Layout.of(config.optim, name, tuple(parameter.shape), model.config.model_type)
            for name, parameter in parameters(model).items()
        }

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def layout_of(self, parameter: torch.nn.Parameter) -> Layout:
        """How a parameter is updated."""
        return self._layouts[parameter]

    @torch.no_grad()
    def restore(self, parameter: torch.nn.Parameter, parts: Mapping[str, torch.Tensor], updates: int) -> None:
        """Set the state of a parameter: whole parts, of their shapes in memory."""
        state = _empty(self._layouts[parameter], parameter)
        state["step"] += updates
        for part, value in parts.items():
            _set(state[part], value, is_own=False)
        self.state[parameter] = state

    def _update(self, parameter: torch.nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        layout, state = self._layouts[parameter], self.state[parameter]
        if not state:
            state.update(_empty(layout, parameter))
        state["step"] += 1
        updates = int(state["step"])
        step = Step(
            learning_rate=group["lr"],
            updates=updates,
            corrections=bias_corrections(updates, self.config),
            config=self.config,
            xp=torch,
        )
        seen = own_part if layout.rule.elementwise else whole
        parts = {part: tensor for part, tensor in state.items() if part != "step"}
        inputs = {part: seen(tensor).float() for part, tensor in parts.items()}
        value, decays = seen(parameter.detach()).float(), group["weight_decay"] != 0
        new, kept = _updated(layout, value, seen(gradient).float(), inputs, step, decays)
        _set(parameter, new, is_own=layout.rule.elementwise)
        for part, tensor in parts.items():
            _set(tensor, kept[part], is_own=layout.rule.elementwise)


def _updated(
    layout: Layout,
    value: torch.Tensor,
    gradient: torch.Tensor,
    state: dict[str, torch.Tensor],
    step: Step,
    decays: bool,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A parameter and its state after an update; one that is several tensors in files, each for itself."""
    if layout.count == 1 or layout.rule.elementwise:
        return layout.rule.update(value, gradient, state, step, decays)
    shapes = layout.rule.state(layout.shape)
    values, gradients = (it.reshape(layout.count, *layout.shape) for it in (value, gradient))
    states = {part: tensor.reshape(layout.count, *shapes[part]) for part, tensor in state.items()}
    each = [
        layout.rule.update(values[i], gradients[i], {part: it[i] for part, it in states.items()}, step, decays)
        for i in range(layout.count)
    ]
    kept = {part: torch.stack([state[part] for _, state in each]).reshape(it.shape) for part, it in state.items()}
    return torch.stack([value for value, _ in each]).reshape(value.shape), kept


def _empty(layout: Layout, parameter: torch.nn.Parameter) -> dict[str, torch.Tensor]:
    shape = tuple(parameter.shape)
    state = {"step": torch.tensor(0.0)}
    for part, size in layout.state_shapes(shape).items():
        if size == shape:
            state[part] = torch.zeros_like(parameter, dtype=torch.float32)
        else:
            state[part] = torch.zeros(size, dtype=torch.float32, device=own_part(parameter.detach()).device)
    return state


def _set(tensor: torch.Tensor, value: torch.Tensor, *, is_own: bool) -> None:
    """Set what this process has of a tensor, to a value of that part, or to its part of the whole value."""
    own = own_part(tensor)
    own.copy_(value if is_own or own is tensor else own_part(like(value, tensor)))
