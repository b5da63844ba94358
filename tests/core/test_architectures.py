"""What a configuration says of the texts that its model takes, under whatever name."""

import pytest
from transformers import (
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    MptConfig,
    ProphetNetConfig,
    ReformerConfig,
    RobertaConfig,
    WhisperConfig,
)

from clm_core.errors import OptionError
from clm_core.models.architectures import count_positions


@pytest.mark.parametrize(
    ("architecture", "positions"),
    [
        (GPT2Config(n_positions=32), 32),
        (LlamaConfig(max_position_embeddings=64), 64),
        (MptConfig(max_seq_len=16), 16),
        (WhisperConfig(max_target_positions=20), 20),
        (RobertaConfig(max_position_embeddings=34, pad_token_id=1), 32),
        (ProphetNetConfig(max_position_embeddings=32, pad_token_id=3), 27),
        (ReformerConfig(max_position_embeddings=64, axial_pos_shape=[4, 8]), 32),
        (ReformerConfig(max_position_embeddings=64, axial_pos_shape=[4, 8], axial_pos_embds=False), 64),
        (BloomConfig(), None),
    ],
)
def test_positions_are_counted_whatever_they_are_called(architecture, positions):
    assert count_positions(architecture) == positions


def test_a_block_longer_than_an_mpt_is_refused_with_the_length_that_fits(train):
    with pytest.raises(OptionError, match="block_size 32 exceeds the 16 positions of the model: use 16"):
        train(model_type="mpt", config_overrides="max_seq_len=16", block_size=32)


def test_a_tokenizer_that_makes_ids_without_an_embedding_is_refused_for_a_prompt(train, refused, tmp_path):
    """With gaps, it has ids above its number of entries."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    train(output_dir=tmp_path / "run")
    words = Tokenizer(models.WordLevel({"<eos>": 0, "the": 1, "cat": 70_000}, "<eos>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>").save_pretrained(tmp_path / "gaps")
    options = ("--model-name-or-path", tmp_path / "run", "--tokenizer-name", tmp_path / "gaps")
    line = refused("--backend", "bigram", "generate", *options, "the cat")
    assert "the tokenizer has ids up to 70000, but the model has only 2,048 embeddings" in line
