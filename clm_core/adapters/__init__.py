"""Adapters: LoRA's two matrices beside dense layers of a model that stays as it is, in peft's layout.

What a backend does with `model.adapter`, of a job's `source` or of an `EvaluationJob`: it builds the base, whose
weights are at `model.name_or_path` as ever; `place` says which of its layers get the two matrices, and which modules
are trained whole; `adapter_weights` has the numbers that they begin with; only these are trained; and `save_adapter`
writes them where `clm_core.weights.save` would write a whole model, in checkpoints too. A layer with an adapter
computes, of its input x,

    base(x) + adapter.scale * B(A(dropout(x)))

where A is (r, in) and B is (out, r). Their names are those of the module in PyTorch with `.lora_A.weight` and
`.lora_B.weight`; what is saved whole has the name of its parameter. Moments in a checkpoint have the same names.
"""

from clm_core.adapters.creation import new_adapter
from clm_core.adapters.placement import Placement, place
from clm_core.adapters.weights import adapter_weights, first_adapter_weight, save_adapter
from clm_core.backend.adapter import LORA_A, LORA_B, Adapter
from clm_core.models.adapters.finding import find_adapter

__all__ = [
    "LORA_A",
    "LORA_B",
    "Adapter",
    "Placement",
    "adapter_weights",
    "find_adapter",
    "first_adapter_weight",
    "new_adapter",
    "place",
    "save_adapter",
]
