"""The small decoders cover their types: each field that a configuration declares is changed in some variant."""

import pytest
from transformers import CONFIG_MAPPING, PretrainedConfig

from clm_core.errors import ModelError
from tests.keras3.plain_decoders import PLAIN
from tests.keras3.small_decoders import NOT_IN_4, SERIES, UNCHANGED, build, fields, names
from tests.keras3.variants import VARIANTS

OF_NO_LOGITS = {"bos_token_id", "eos_token_id", "init_std", "initializer_range", "use_cache"}


@pytest.mark.skipif(SERIES < 5, reason="the fields are in the words of transformers 5")
@pytest.mark.parametrize("kind", PLAIN)
def test_every_field_that_a_configuration_declares_is_changed_or_known_to_change_nothing(kind: str) -> None:
    default = {field: value for field, value in CONFIG_MAPPING[kind]().to_dict().items() if field not in OF_NO_LOGITS}
    of_all = PretrainedConfig().to_dict().keys() | {"_sliding_window_pattern"}
    written = [fields(name) for name in names() if VARIANTS[name]["model_type"] == kind]
    changed = {field for each in written for field in each if field not in default or each[field] != default[field]}
    assert default.keys() - of_all - changed == UNCHANGED.get(kind, set())
    assert {"tie_word_embeddings", "pad_token_id"} <= changed


@pytest.mark.skipif(SERIES >= 5, reason="only transformers 4.57 lacks some")
@pytest.mark.parametrize("name", NOT_IN_4)
def test_a_variant_that_transformers_4_57_lacks_fails_in_it(name: str) -> None:
    with pytest.raises((ModelError, AttributeError, ValueError)):
        build(name)
