"""The contract covers every option there is."""

from dataclasses import fields

from clm_core.config import EvaluateConfig, GenerateConfig, TrainConfig
from clm_core.testing import CORE_OPTIONS, MEMORY_OPTIONS, MODEL_OPTIONS, SAMPLING_PROBES, SCHEDULED, TRAINING_PROBES


def test_every_option_is_proved_for_each_backend_or_is_the_cores():
    known = {field.name for config in (TrainConfig, EvaluateConfig, GenerateConfig) for field in fields(config)}
    proved = {*TRAINING_PROBES, *SCHEDULED, *SAMPLING_PROBES, *MEMORY_OPTIONS}
    assert known == {*proved, *CORE_OPTIONS, *MODEL_OPTIONS}
