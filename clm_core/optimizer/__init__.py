"""The optimizers: AdamW, Adafactor and Muon, defined once for arrays of any library.

`rule_of` says which update a parameter gets by the option `optim`; `adamw`, `adafactor` and `muon` are the updates.
`write_states` and `read_states` keep what they keep in a checkpoint, whichever framework computes them.
"""

from clm_core.optimizer.adafactor import adafactor
from clm_core.optimizer.adamw import adamw, bias_corrections, clipping_factor, clipping_ratio
from clm_core.optimizer.arrays import Array
from clm_core.optimizer.muon import muon
from clm_core.optimizer.rules import ADAFACTOR, ADAMW, MUON, Rule, Step, is_adamw, rule_of
from clm_core.optimizer.state import State, read_states, write_states

__all__ = [
    "ADAFACTOR",
    "ADAMW",
    "MUON",
    "Array",
    "Rule",
    "State",
    "Step",
    "adafactor",
    "adamw",
    "bias_corrections",
    "clipping_factor",
    "clipping_ratio",
    "is_adamw",
    "muon",
    "read_states",
    "rule_of",
    "write_states",
]
