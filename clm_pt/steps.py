"""What each step came to, reported to the job: at once or, where a GPU would be waited for, when it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from clm_core.backend import StepDone, TrainingJob
from clm_pt.memory import peak_of_accelerator
from clm_pt.processes import gather

ON_THE_WAY = ("cuda", "xpu")
"""The devices that compute while Python continues, and whose results can be fetched in the meantime."""


class Steps:
    """Adds up what the batches of a step came to, over all processes, and reports it.

    A GPU has the next step to compute before the figures of the last one are read, so that it never waits for Python.
    What depends on a step being known has it at once: a stop, an evaluation, a checkpoint, a line of the history.
    """

    def __init__(self, job: TrainingJob, device: torch.device, *, is_sharded: bool) -> None:
        self._job, self._is_sharded, self._adds = job, is_sharded, False
        self.reads_late = device.type in ON_THE_WAY and job.world.size == 1 and not job.options.guide
        """Whether to read the figures of a step only once the next one has begun, where nothing depends on them."""
        self._losses: list[torch.Tensor] = []
        self._added: list[torch.Tensor] = []
        self._sums = torch.zeros(2, dtype=torch.float64)
        self._waiting: _Figures | None = None
        self.grad_norm: torch.Tensor | float | None = None
        """Of the step, before clipping."""
        self.last: StepDone | None = None
        """The step that was reported last."""

    def add(self, loss: torch.Tensor, added: torch.Tensor | None = None) -> None:
        """Add a batch: its share of the step's loss, and of what the model adds to it, as for balanced experts."""
        self._losses.append(loss.detach())
        if added is not None:
            self._adds = True
            self._added.append(added.detach())

    def add_up(self, squares: torch.Tensor | None = None) -> torch.Tensor:
        """Add up what the processes have of a step: its losses, its gradient, and what they were asked.

        `squares` is the sum of squares over a process's part of the gradient; that over all of it is returned.
        """
        own = torch.zeros((), dtype=torch.float64) if squares is None else squares
        if self.reads_late:
            self._sums = torch.stack([_sum(self._losses, own), _sum(self._added, own)])
        else:
            own = self._over_all(float(own))
        self._losses.clear()
        self._added.clear()
        return own

    def report(self, step: int) -> bool:
        """Report a step, and the one before if that is still to be done; returns whether this one is reported.

        If it is not, nothing is due after it.
        """
        before, self._waiting = self._waiting, None
        if before is not None:
            self._report(before, is_late=True)
        figures = _Figures.of(step, self._sums, self.grad_norm)
        if self.reads_late and not self._is_awaited(step):
            self._waiting = figures
            return False
        self._report(figures)
        return True

    def _over_all(self, squares: float) -> torch.Tensor:
        stop = self._job.stop
        own = (math.fsum(map(float, self._losses)), math.fsum(map(float, self._added)), squares, stop.wish)
        losses, added, parts, wishes = zip(*gather(own), strict=True)
        self._sums = torch.tensor([math.fsum(losses), math.fsum(added)], dtype=torch.float64)
        if stop.together:
            stop.agree(int(max(wishes)))
        return torch.tensor(math.fsum(parts) if self._is_sharded else parts[0], dtype=torch.float64)

    def _is_awaited(self, step: int) -> bool:
        job, schedule = self._job, self._job.schedule
        is_first_or_last = step in (job.first_step + 1, schedule.total_steps)
        is_due = job.stop.requested or job.evaluates_at(step) or job.saves_at(step) or schedule.logs_at(step)
        return is_first_or_last or is_due

    def _report(self, figures: _Figures, *, is_late: bool = False) -> None:
        loss, added, norm = figures.read()
        self.last = StepDone(
            step=figures.step,
            loss=loss,
            grad_norm=norm,
            auxiliary_loss=added if self._adds else None,
            peak_memory_bytes=peak_of_accelerator(),
            is_late=is_late,
        )
        self._job.report(self.last)


@dataclass(frozen=True)
class _Figures:
    """The figures of a step, on their way from the device that computes them."""

    step: int
    numbers: torch.Tensor
    """The loss, what was added to it and, if it is known, the norm of the gradient; float64."""
    arrived: torch.Event | None

    @classmethod
    def of(cls, step: int, sums: torch.Tensor, norm: torch.Tensor | float | None) -> _Figures:
        known = [] if norm is None else [torch.as_tensor(norm, dtype=torch.float64, device=sums.device)]
        numbers = torch.cat([sums, *(each.reshape(1) for each in known)]).to("cpu", non_blocking=True)
        if sums.device.type not in ON_THE_WAY:
            return cls(step, numbers, None)
        arrived = torch.Event(sums.device.type)
        arrived.record()
        return cls(step, numbers, arrived)

    def read(self) -> tuple[float, float, float | None]:
        """The numbers, once they are here."""
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, added, *norm = self.numbers.tolist()
        return loss, added, norm[0] if norm else None


def _sum(batches: Sequence[torch.Tensor], beside: torch.Tensor) -> torch.Tensor:
    """Of numbers of batches, in float64, on the device of another one."""
    return torch.stack(list(batches)).double().sum() if batches else torch.zeros_like(beside)
