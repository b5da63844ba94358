"""Writes the models and tokenizers of this folder with plain transformers: `python tests/series/make_fixtures.py`.

Run under transformers 5 it writes `of_5`, under 4.57 `of_4`, with the losses that this series computes beside them.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).parent
IDS = np.random.default_rng(0).integers(3, 60, size=(2, 48))
WIDTHS = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24}
COUNTS = {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
SIZES = {**WIDTHS, **COUNTS, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
LAYERS = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}


def rope(kind: str = "default", **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500000.0, **parameters}}


LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
LONG = {"short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0, 4.0, 8.0, 12.0]}
YARN = {"factor": 4.0, "original_max_position_embeddings": 16, "attention_factor": 1.3}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8, "mamba_expand": 2}
GRANITE = {
    "num_hidden_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "position_embedding_type": "rope",
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "shared_intermediate_size": 8,
}
MOE = {"moe_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2}
BY_LAYER = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
}
OF_5: dict[str, dict[str, Any]] = {
    "gemma2": {**GROUPED, **LAYERS, **rope(), "sliding_window": 8, "attn_logit_softcapping": None},
    "gemma3_text": {**GROUPED, **LAYERS, "sliding_window": 8, "rope_parameters": BY_LAYER},
    "glm": {**GROUPED, **rope(partial_rotary_factor=0.25)},
    "gpt_neox": rope(partial_rotary_factor=0.75),
    "granitemoehybrid": {**GROUPED, **MAMBA, **GRANITE, **rope()},
    "llama": {**GROUPED, **rope("llama3", factor=8.0, **LLAMA3)},
    "mamba2": {"num_heads": 4, "head_dim": 8, "state_size": 8, "chunk_size": 8, "n_groups": 1},
    "mistral": {**GROUPED, **rope(), "sliding_window": 8},
    "olmo2": {**GROUPED, **rope("linear", factor=4.0)},
    "phi3": {"num_key_value_heads": 1, "original_max_position_embeddings": 16, **rope("longrope", **LONG)},
    "qwen2": {**GROUPED, **LAYERS, **rope("yarn", **YARN), "sliding_window": 8, "use_sliding_window": True},
    "qwen3_moe": {**GROUPED, **MOE, **rope()},
    "smollm3": {**GROUPED, **rope("dynamic", factor=4.0), "num_hidden_layers": 2, "no_rope_layers": [1, 0]},
}
"""By model type: fields that are not its defaults. A text of 48 tokens is longer than every window and first length."""

THETA = {"rope_theta": 500.0}
OF_4: dict[str, dict[str, Any]] = {
    "dbrx": {
        "d_model": 16,
        "n_heads": 2,
        "n_layers": 1,
        "max_seq_len": 64,
        "attn_config": {**THETA, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 8, "moe_num_experts": 2, "moe_top_k": 1},
    },
    "gpt_oss": {**GROUPED, **THETA, "rope_scaling": None, "num_local_experts": 2, "num_experts_per_tok": 1},
    "olmo3": {**LAYERS, "num_key_value_heads": 1, **THETA, "sliding_window": 8},
}
"""Those that transformers 5 misreads."""

TEXTS = ["the cat sat on the mat", " Hello <|end|> World </s> é", "a<image>b <|im_start|>user\n x", "the  cat"]


def main() -> None:
    series = int(transformers.__version__.split(".")[0])
    folder = HERE / f"of_{series}"
    shutil.rmtree(folder, ignore_errors=True)
    losses = {
        kind: write_model(kind, fields, folder / kind) for kind, fields in (OF_5 if series >= 5 else OF_4).items()
    }
    said: dict[str, Any] = {"version": transformers.__version__, "ids": IDS.tolist(), "losses": losses}
    if series >= 5:
        said |= {"texts": TEXTS, "tokens": write_tokenizers(folder / "tokenizers"), "fields": fields_by_type()}
    (folder / "recorded.json").write_text(json.dumps(said) + "\n", encoding="utf-8")


def write_model(kind: str, fields: dict[str, Any], folder: Path) -> float:
    """Write a model with random weights; its loss."""
    sizes = {name: value for name, value in SIZES.items() if kind != "dbrx" or name == "vocab_size"}
    config = AutoConfig.for_model(kind, **{**sizes, **fields})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    ids = torch.from_numpy(IDS)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.double()
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    likelihood = torch.log_softmax(logits, -1)[:, :-1].gather(-1, ids[:, 1:, None])
    return -likelihood.mean().item()


def write_tokenizers(folder: Path) -> dict[str, list[list[int]]]:
    """Write tokenizers of several kinds; the ids of `TEXTS` by each, read again."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    characters = {"<|end|>": 0} | {each: row for row, each in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 1)}
    pieces = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{byte:02X}>": byte + 3 for byte in range(256)}}
    for piece in ["▁", *"abcdefghijklmnopqrstuvwxyzHW<>|/", "▁t", "he", "▁the"]:
        pieces.setdefault(piece, len(pieces))
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "mat", "a", "##s", "##t", "h"]
    backend = Tokenizer(models.BPE(vocab=characters, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made: dict[str, Any] = {
        "listed": transformers.TokenizersBackend(
            tokenizer_object=backend,
            eos_token="<|end|>",
            pad_token=AddedToken("<pad>", lstrip=True),
            extra_special_tokens=["<|im_start|>", "<|im_end|>"],
            padding_side="left",
            model_max_length=64,
            chat_template="{{ messages[0]['content'] }}",
        ),
        "named": transformers.TokenizersBackend(
            tokenizer_object=backend,
            eos_token="<|end|>",
            bos_token="<bos>",
            add_bos_token=True,
            add_eos_token=True,
            extra_special_tokens={"image_token": "<image>"},
        ),
        "llama": transformers.LlamaTokenizer(vocab=pieces, merges=merges),
        "wordpiece": transformers.BertTokenizer(vocab={word: row for row, word in enumerate(words)}),
        "slow": transformers.ByT5Tokenizer(extra_ids=2),
    }
    for name, tokenizer in made.items():
        tokenizer.save_pretrained(folder / name)
    read = {name: transformers.AutoTokenizer.from_pretrained(folder / name) for name in made}
    return {name: [tokenizer(text)["input_ids"] for text in TEXTS] for name, tokenizer in read.items()}


def fields_by_type() -> dict[str, str]:
    """What is written of the default configuration of each causal language model, and of each of its parts."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found: dict[str, str] = {}

    def collect(fields: dict[str, Any]) -> None:
        found[fields["model_type"]] = " ".join(sorted(fields))
        for part in fields.values():
            if isinstance(part, dict) and part.get("model_type"):
                collect(part)

    for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        try:
            collect(json.loads(AutoConfig.for_model(kind).to_json_string()))
        except Exception as error:  # Some cannot be made of defaults.
            print(f"{kind}: {error}", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
