"""No token may see those that it is to predict: what a configuration says about it, and what a model does."""

import numpy as np
import pytest
from transformers import BertConfig, CanineConfig, GPT2Config, MegatronBertConfig, RobertaConfig, XLMConfig, XLNetConfig

from clm_core.config import TokenizerOptions, TrainConfig
from clm_core.errors import ModelError
from clm_core.models.architectures import count_positions, text_part
from clm_core.models.causality import check_causal, make_causal
from clm_core.models.configurations import load_architecture, new_architecture


@pytest.mark.parametrize(
    ("architecture", "name", "value"),
    [
        (BertConfig(), "is_decoder", True),
        (MegatronBertConfig(), "is_decoder", True),
        (XLMConfig(), "causal", True),
        (XLNetConfig(), "attn_type", "uni"),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_an_encoder_is_made_causal_and_it_is_said_once(architecture, name, value):
    assert f"set {name}={value}, so that no token can attend" in make_causal(architecture)
    assert getattr(architecture, name) == value
    assert make_causal(architecture) is None


def test_what_is_causal_by_itself_is_left_alone():
    architecture = GPT2Config()
    before = architecture.to_dict()
    assert make_causal(architecture) is None
    assert architecture.to_dict() == before


def test_a_new_encoder_is_causal(tokenizer):
    said = []
    assert new_architecture(TrainConfig(model_type="bert"), tokenizer, said.append).is_decoder
    assert said == ["bert: set is_decoder=True, so that no token can attend to the tokens it should predict"]


def test_an_encoders_checkpoint_is_opened_as_causal(tmp_path):
    said = []
    BertConfig().save_pretrained(tmp_path)
    options = TokenizerOptions(model_name_or_path=str(tmp_path))
    assert load_architecture(options, said.append).is_decoder
    load_architecture(options).save_pretrained(tmp_path)
    load_architecture(options, said.append)
    assert len(said) == 1


def logits_of(weights):
    """Logits that are a weighted sum of the tokens; `weights` of shape (length, length)."""
    return lambda ids: (weights @ ids[0])[None, :, None].astype(np.float32)


def test_logits_that_do_not_depend_on_later_tokens_are_accepted():
    check_causal(logits_of(np.tril(np.ones((8, 8)))), GPT2Config())


def test_logits_that_move_with_a_later_token_are_refused():
    with pytest.raises(ModelError, match=r"model type canine is not a causal language model.*they should predict"):
        check_causal(logits_of(np.ones((8, 8))), CanineConfig())


def test_weights_that_diverged_are_named_where_the_mask_no_longer_holds():
    with pytest.raises(ModelError, match=r"weights of this gpt2 have diverged.*: a logit is 28,000; "):
        check_causal(logits_of(np.ones((8, 8)) * 1000), GPT2Config())


def test_a_model_is_asked_within_its_vocabulary_and_its_positions():
    asked = []
    logits = logits_of(np.eye(4))
    check_causal(lambda ids: asked.append(ids) or logits(ids), GPT2Config(vocab_size=3, n_positions=4))
    assert [ids.tolist() for ids in asked] == [[[0, 1, 2, 0]], [[0, 1, 2, 1]]]


def test_what_cannot_be_asked_with_text_alone_is_refused_with_the_reason():
    def fail(ids):
        raise ValueError("where are the\npixels?")

    with pytest.raises(ModelError, match=r"gpt2 does not work with text alone: where are the$"):
        check_causal(fail, GPT2Config())


def test_the_text_part_of_a_composite_configuration_takes_the_tokenizer(tokenizer):
    architecture = new_architecture(TrainConfig(model_type="gemma3"), tokenizer)
    assert text_part(architecture) is architecture.text_config
    assert architecture.text_config.vocab_size == len(tokenizer)


@pytest.mark.parametrize(
    ("architecture", "positions"),
    [
        (GPT2Config(n_positions=32), 32),
        (RobertaConfig(max_position_embeddings=34, pad_token_id=1), 32),
        (XLNetConfig(), None),
    ],
    ids=["gpt2", "roberta", "xlnet"],
)
def test_positions_are_counted_as_the_architecture_counts_them(architecture, positions):
    assert count_positions(architecture) == positions
