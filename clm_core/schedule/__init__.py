"""The schedule of a training: which blocks and which learning rate each step has; when to log, evaluate and save.

It is decided here, once for every backend. Everything is a pure function of its arguments, so that two
frameworks, or a run before and after it was resumed, or on more devices, cannot disagree about it.
"""

from clm_core.schedule.order import Rows, epoch_order
from clm_core.schedule.schedule import Schedule, check_rates
from clm_core.schedule.tokens import TokenCount

__all__ = ["Rows", "Schedule", "TokenCount", "check_rates", "epoch_order"]
