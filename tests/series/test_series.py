"""Models and tokenizers that one series of transformers wrote are the same in the other, on every backend here."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import transformers
from frameworks import installed

from clm_core.backend import Model
from clm_core.config import TrainConfig
from clm_core.errors import ModelError
from clm_core.models.configurations import load_architecture, load_config
from clm_core.models.model_folder import complete
from clm_core.models.series import BUILT_IN, RENAMED, in_4, in_5, parameters
from clm_core.models.tokenizers import load_tokenizer

HERE = Path(__file__).parent
RECORDED = {series: json.loads((HERE / series / "recorded.json").read_text()) for series in ("of_4", "of_5")}
BACKENDS = installed()
MODELS = [(series, kind) for series, recorded in RECORDED.items() for kind in recorded["losses"]]
CASES = [(*model, name) for model in MODELS for name, backend in BACKENDS.items() if model[1] in backend.model_types]
TOKENIZERS = HERE / "of_5" / "tokenizers"
ON_4 = pytest.mark.skipif(int(transformers.__version__.split(".")[0]) >= 5, reason="transformers 5 reads its own")


def loss(folder: Path, backend: str, ids: list[list[int]]) -> float:
    """Of the tokens after the first, by the model in a folder as clm loads it."""
    architecture = load_architecture(TrainConfig(model_name_or_path=str(folder)))
    array = np.array(ids)
    model = Model(name_or_path=str(folder), revision="main", architecture=architecture, seed=0)
    logits = BACKENDS[backend].load(model)(array).astype(np.float64)
    likelihood = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return float(-np.take_along_axis(likelihood[:, :-1], array[:, 1:, None], -1).mean())


@pytest.mark.parametrize(("series", "kind", "backend"), CASES)
def test_a_model_has_the_loss_that_the_series_computed_which_wrote_it(series: str, kind: str, backend: str) -> None:
    recorded = RECORDED[series]
    assert loss(HERE / series / kind, backend, recorded["ids"]) == pytest.approx(recorded["losses"][kind], abs=1e-6)


@ON_4
@pytest.mark.parametrize("kind", RECORDED["of_5"]["losses"])
def test_what_4_writes_again_has_no_word_of_5_and_is_read_again_as_it_is(kind: str, tmp_path: Path) -> None:
    architecture = load_config("model", str(HERE / "of_5" / kind), "main")
    architecture.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert in_4(written) == written
    assert in_5(written).get("rope_parameters") is None
    again = load_config("model", str(tmp_path), "main")
    assert {**again.to_dict(), "_name_or_path": ""} == {**architecture.to_dict(), "_name_or_path": ""}


NESTED = {"full_attention": {"rope_type": "default", "rope_theta": 5e5}, "sliding_attention": {"rope_theta": 70.0}}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0],
    "long_factor": [2.0],
    "factor": 3.0,
    "original_max_position_embeddings": 16,
}
REFUSED = {
    "an unknown type": ("llama", {"rope_parameters": {"rope_type": "proportional", "rope_theta": 5e5}}, "proportional"),
    "a type of others": ("nemotron", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "linear"),
    "two thetas": ("olmo3", {"rope_parameters": NESTED, "layer_types": list(NESTED)}, "70.0"),
    "a factor of its own": ("phi3", {"rope_parameters": LONG, "max_position_embeddings": 64}, "attention_factor"),
    "layers that differ": ("qwen2_moe", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
    "sizes by layer": ("llama", {"per_layer_config": {"0": {"intermediate_size": 8}}}, "per_layer_config"),
    "a mask that is none": ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    "another activation": ("gpt_oss", {"swiglu_limit": 5.0}, "swiglu_limit"),
}


@ON_4
@pytest.mark.parametrize("kind", REFUSED)
def test_what_4_has_no_word_for_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    model_type, fields, name = REFUSED[kind]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, **fields}))
    with pytest.raises(
        ModelError, match=rf"{tmp_path}: .*{name}.* {model_type} of transformers 4.* needs transformers 5"
    ):
        load_config("model", str(tmp_path), "main")


def test_a_window_of_all_layers_or_of_none_is_said_in_the_words_of_both() -> None:
    window = {"model_type": "qwen2_moe", "use_sliding_window": True, "sliding_window": 8, "num_hidden_layers": 2}
    assert in_5(window)["layer_types"] == ["sliding_attention"] * 2
    if int(transformers.__version__.split(".")[0]) < 5:
        assert in_4({**window, "layer_types": ["full_attention"] * 2})["use_sliding_window"] is False


@ON_4
def test_the_activation_of_the_first_gemmas_is_the_one_that_they_mean() -> None:
    assert in_4({"model_type": "gemma", "hidden_act": "gelu"})["hidden_act"] == "gelu_pytorch_tanh"
    assert in_4({"model_type": "gemma", "hidden_act": "silu"})["hidden_act"] == "silu"


@ON_4
def test_parts_of_a_configuration_are_put_in_the_same_words() -> None:
    text = {"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    read = in_4({"model_type": "llava", "text_config": text, "vision_config": {"model_type": "clip_vision_model"}})
    assert read["text_config"] == {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": None}


UNREAD = {
    *("label_names", "local_attention_window_len", "num_classes", "num_nextn_predict_layers", "pretraining_tp"),
    *("qk_head_dim", "scale_decoder_outputs", "use_associative_scan", "use_cache", "use_mamba_kernels", "use_mambapy"),
    "vision_use_head",
}
"""Fields of transformers 5 that change no logits of a text, or name a kernel that computes the same."""
OF_PARTS = {"musicgen", "musicgen_melody"}
"""The model types without a configuration of their own: there is no default of their parts."""


@ON_4
def test_each_field_that_5_writes_is_known_to_4_or_accounted_for() -> None:
    unknown = {
        kind: set(names.split()) - known_to_4(kind) - UNREAD - BUILT_IN.keys() - {"rope_parameters"}
        for kind, names in RECORDED["of_5"]["fields"].items()
        if kind in transformers.CONFIG_MAPPING and kind not in OF_PARTS
    }
    assert {kind: names for kind, names in unknown.items() if names} == {}


def known_to_4(kind: str) -> set[str]:
    config = transformers.CONFIG_MAPPING[kind]
    written = {"model_type", "transformers_version", "output_attentions"}
    return (
        vars(config()).keys()
        | parameters(config)
        | config.attribute_map.keys()
        | RENAMED.get(kind, {}).keys()
        | written
    )


@pytest.mark.parametrize("name", RECORDED["of_5"]["tokens"])
def test_a_tokenizer_of_5_makes_the_same_tokens_and_does_so_when_it_is_written_again(name: str, tmp_path: Path) -> None:
    texts, tokens = RECORDED["of_5"]["texts"], RECORDED["of_5"]["tokens"][name]
    tokenizer = load_tokenizer(TrainConfig(tokenizer_name=str(TOKENIZERS / name)))
    complete(tmp_path, tokenizer, transformers.GPT2Config())
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)  # As anyone would, in either series.
    assert [tokenizer(text)["input_ids"] for text in texts] == tokens
    assert [again(text)["input_ids"] for text in texts] == tokens


def test_a_tokenizer_of_5_keeps_its_special_tokens_its_side_and_its_chat_template() -> None:
    listed = load_tokenizer(TrainConfig(tokenizer_name=str(TOKENIZERS / "listed")))
    named = load_tokenizer(TrainConfig(tokenizer_name=str(TOKENIZERS / "named")))
    assert {"<|end|>", "<pad>", "<|im_start|>", "<|im_end|>"} <= set(listed.all_special_tokens)
    assert (listed.padding_side, listed.model_max_length) == ("left", 64)
    assert listed.apply_chat_template([{"role": "user", "content": "yes"}], tokenize=False) == "yes"
    assert (named.image_token, named.eos_token) == ("<image>", "<|end|>")
    assert "<image>" in named.all_special_tokens


@ON_4
def test_a_tokenizer_of_5_without_its_file_is_refused(tmp_path: Path) -> None:
    shutil.copy(TOKENIZERS / "listed" / "tokenizer_config.json", tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        load_tokenizer(TrainConfig(tokenizer_name=str(tmp_path)))
