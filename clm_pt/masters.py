"""Weights in bfloat16, each beside the float32 one that the optimizer updates and that is written: its master."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from clm_core.backend import TrainingJob


def dtype_to_load(job: TrainingJob) -> torch.dtype:
    """The type in which a model is read: float32, unless nothing of it is trained, as of the base of an adapter."""
    adapter = job.source.adapter
    if adapter is None or job.options.fsdp or not job.config.has_bfloat16_weights:
        return torch.float32
    begins_as_base = adapter.modules_to_save and adapter.folder is None
    return torch.float32 if begins_as_base else torch.bfloat16


def masters_of(model: PreTrainedModel, job: TrainingJob) -> Masters | None:
    """Make the weights of a model bfloat16, if the job says so; FSDP2 has another way, and None then."""
    if not job.config.has_bfloat16_weights or job.options.fsdp:
        return None
    return Masters(model, is_written=job.model.adapter is None, adds_up=job.schedule.accumulation > 1)


class Masters:
    """The masters of a model whose parameters are bfloat16, but float32 while the masters are in their place.

    A master is kept as what its parameter lacks of it, the lower half of its bits: both together are as large as it is.
    A parameter is the same object all the time, so that the optimizer and whatever reads or writes weights need not
    know. One that is not trained has a master only if it `is_written` and is another number in bfloat16.
    """

    def __init__(self, model: PreTrainedModel, *, is_written: bool = True, adds_up: bool = False) -> None:
        self._trained: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._frozen: dict[torch.nn.Parameter, torch.Tensor | None] = {}
        self._sums: dict[torch.nn.Parameter, torch.Tensor] = {}
        for parameter in _to_round(model):
            parameter.data, lower = split(parameter.data)
            if parameter.requires_grad:
                self._trained[parameter] = lower
            elif is_written:
                self._frozen[parameter] = lower if lower.any() else None
        if adds_up:  # A sum of many in bfloat16 loses what is small beside it.
            for parameter in self._trained:
                parameter.register_post_accumulate_grad_hook(self._add)

    def take_place(self) -> None:
        """Put the masters of what is trained in place, with their gradients in float32: one after the other."""
        for parameter, lower in self._trained.items():
            gradient = self._sums.pop(parameter, parameter.grad)
            parameter.grad = None  # It could not be of another type than its parameter.
            parameter.data = join(parameter.data, lower)
            if gradient is not None:
                parameter.grad = gradient.float()

    def give_place(self) -> None:
        """Put them aside again, without their gradients; the parameters are what they are in bfloat16."""
        for parameter in self._trained:
            parameter.grad = None
            parameter.data, self._trained[parameter] = split(parameter.data)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it, all masters are in place, to be written or to get what a checkpoint has; between two steps."""
        halves = {parameter: parameter.data for parameter in self._frozen}
        self.take_place()
        for parameter, lower in self._frozen.items():
            parameter.data = parameter.data.float() if lower is None else join(parameter.data, lower)
        try:
            yield
        finally:
            self.give_place()
            for parameter, half in halves.items():
                parameter.data = half

    def _add(self, parameter: torch.Tensor) -> None:
        """Add the gradient of a batch to those of the step, in float32."""
        assert isinstance(parameter, torch.nn.Parameter)
        assert parameter.grad is not None
        if parameter in self._sums:
            self._sums[parameter] += parameter.grad
        else:
            self._sums[parameter] = parameter.grad.float()
        parameter.grad = None


def split(master: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A float32 tensor rounded to bfloat16, whose bits are the upper half; and what to add to these, int16."""
    bits = master.view(torch.int32)
    upper = (bits + 0x8000).bitwise_right_shift_(16)
    return upper.to(torch.int16).view(torch.bfloat16), bits.to(torch.int16)


def join(half: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    """The float32 tensor that was split into these."""
    return half.float().view(torch.int32).add_(lower).view(torch.float32)


def round_weights(model: PreTrainedModel) -> None:
    """Make the weights of a model bfloat16, without masters; its buffers stay."""
    for parameter in _to_round(model):
        parameter.data = parameter.data.bfloat16()


def kept_in_float32(model: PreTrainedModel) -> list[str]:
    """The names of the parameters that a class has in float32 whatever the others are, as transformers reads them."""
    parts = getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    kept = re.compile("|".join(rf"(^|\.){re.escape(part)}(\.|$)" for part in parts) or "(?!)")
    return [name for name, _ in model.named_parameters() if kept.search(name)]


def _to_round(model: PreTrainedModel) -> Iterable[torch.nn.Parameter]:
    kept = set(kept_in_float32(model))
    found = dict(model.named_parameters())
    return [it for name, it in found.items() if name not in kept and it.dtype == torch.float32]
