"""Differences between transformers 4 and 5 in what they write: fields translated to the installed one.

transformers 5 has what belongs to rotary embeddings in one dictionary, `rope_parameters`, flat or by type of layer;
4.57 has a field for each, and some architectures have their own names for them. What differs was found by comparing
the logits of all architectures that both have, with these fields changed; tests/series holds what matters most.
"""

import inspect
import math
from dataclasses import dataclass
from typing import Any

from clm_core.errors import ModelError

Fields = dict[str, Any]
"""Of a config.json, or of a part of it that is a configuration in itself."""

FULL, SLIDING = "full_attention", "sliding_attention"
TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
PLAIN = {"rope_type": "default"}
POSITIONS = ("factor", "original_max_position_embeddings")
"""Of longrope: what a class says in other fields."""


@dataclass(frozen=True)
class Rope:
    """How a class of transformers 4.57 takes the parameters of its rotary embeddings."""

    theta: str = "rope_theta"
    """The field, or the part and the field, with a dot between."""
    partial: str = "partial_rotary_factor"
    types: tuple[str, ...] = TYPES
    keys: tuple[str, ...] | None = None
    """What it takes in `rope_scaling` beside the type, which it then calls `type`; None for whatever there is."""
    sliding_theta: str | None = None
    """The field of layers with a sliding window, if their theta is their own."""
    sliding_scaled: bool = True
    """Whether those layers are scaled as the others are, or not at all."""
    unread: str | None = None
    """A field that says the theta too, for transformers 5 alone."""


OF_GEMMA = Rope(sliding_theta="rope_local_base_freq", sliding_scaled=False)
OF_NEOX = Rope(theta="rotary_emb_base", partial="rotary_pct")
OF_OLMO = Rope(types=("default", "linear", "dynamic"), keys=("factor",))
OF_PHI3 = Rope(types=("default", "longrope"), keys=("short_factor", "long_factor"))
ROPES = {
    **dict.fromkeys(("gemma3_text", "gemma3n_text"), OF_GEMMA),
    **dict.fromkeys(("gpt_neox", "gpt_neox_japanese"), OF_NEOX),
    **dict.fromkeys(("olmo", "olmo2"), OF_OLMO),
    **dict.fromkeys(("phi3", "phi4_multimodal"), OF_PHI3),
    **dict.fromkeys(("nemotron", "recurrent_gemma"), Rope(types=("default",))),
    "dbrx": Rope(theta="attn_config.rope_theta", types=("default",)),
    "llama4_text": Rope(types=("default", "llama3")),
    "modernbert-decoder": Rope(theta="global_rope_theta", unread="local_rope_theta"),
    "olmo3": Rope(sliding_scaled=False),
}
"""By model type, where it is not the rule."""

SCALED_BY_DEFAULT = ("apertus", "gpt_oss")
"""The model types whose class in transformers 5 has another type than `default`, unless it is told."""

RENAMED = {
    "falcon_mamba": {"use_mambapy": "use_falcon_mambapy"},
    "qwen3_moe": {"num_local_experts": "num_experts"},
    "xlm": {"bos_token_id": "bos_index", "eos_token_id": "eos_index", "pad_token_id": "pad_index"},
}
"""By model type: what transformers 5 calls a field, and 4.57."""

LAYERS = {
    "granitemoehybrid": ("layer_types", {"linear_attention": "mamba", FULL: "attention"}),
    "zamba": ("layers_block_type", {"linear_attention": "mamba"}),
    "zamba2": ("layers_block_type", {"linear_attention": "mamba"}),
}
"""By model type: the list of the layers' types, and what 4.57 calls those that have another name in transformers 5."""

NAMED_TOKENS = {f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")}
OF_TOKENIZERS = ("additional_special_tokens", "extra_special_tokens", "model_input_names", "padding_side")

BUILT_IN: dict[str, tuple[Any, ...]] = {
    "layer_types": (FULL,),
    "output_router_logits": (False, None),
    "per_layer_config": (None,),
    "swiglu_alpha": (1.702,),
    "swiglu_limit": (7.0,),
    "time_step_limit": (0.0, math.inf),
    "use_bidirectional_attention": (False, None),
}
"""Fields that older classes do not have, and the values with which a newer class does what an older one does always."""


def translated(written: Fields) -> Fields:
    """The fields of a configuration in the words of the series of transformers that is installed.

    Raises:
        ModelError: it has no words for one of them; the message names it.
    """
    return in_5(written) if installed() >= 5 else in_4(written)


def in_5(written: Fields) -> Fields:
    """The fields in the words of transformers 5, which reads those of 4.57 as they are meant but for these classes."""
    fields: Fields = {name: in_5(value) if _is_part(value) else value for name, value in written.items()}
    kind = fields.get("model_type")
    if "rope_parameters" in fields:
        return fields
    if kind == "olmo3" and "rope_theta" in fields:  # It gives the theta to FULL, and its default to SLIDING.
        theta, scaled = fields.pop("rope_theta"), named_type(fields.pop("rope_scaling", None) or PLAIN)
        fields["rope_parameters"] = {
            name: {**of, "rope_theta": theta} for name, of in ((FULL, scaled), (SLIDING, PLAIN))
        }
    if kind == "dbrx" and "rope_theta" in (fields.get("attn_config") or {}):  # It looks for it elsewhere.
        fields["rope_parameters"] = {**PLAIN, "rope_theta": fields["attn_config"]["rope_theta"]}
    if kind == "qwen2_moe" and fields.get("use_sliding_window"):  # In 4.57 it is for all layers, and here for some.
        fields.setdefault("layer_types", [SLIDING] * fields["num_hidden_layers"])
    if kind in SCALED_BY_DEFAULT and "rope_scaling" in fields:  # It takes null for its default.
        fields["rope_scaling"] = fields["rope_scaling"] or PLAIN
    return fields


def in_4(written: Fields) -> Fields:
    """The fields in the words of transformers 4.57; what is in its words already stays as it is.

    Raises:
        ModelError: it has no words for one of them.
    """
    from transformers import CONFIG_MAPPING

    kind = str(written.get("model_type"))
    fields = {name: in_4(value) if _is_part(value) else _numbers(value) for name, value in written.items()}
    if fields.get("quantization_config", ()) is None:  # It fails in it.
        del fields["quantization_config"]
    if kind == "gemma" and fields.get("hidden_act") == "gelu":  # So the first files say, and mean this one.
        fields["hidden_act"] = "gelu_pytorch_tanh"
    if kind not in CONFIG_MAPPING:
        return fields  # A part of a kind without a name, or an architecture that is new: transformers says so.
    config = CONFIG_MAPPING[kind]
    if kind == "dbrx" and "rope_parameters" in fields:  # Its parts reject what all configurations of 5 have.
        for name, part in config.sub_configs.items():
            fields[name] = {key: value for key, value in fields[name].items() if key in parameters(part)}
    known = parameters(config)
    _rename(fields, kind, known)
    _set_rope(fields, kind, known)
    if kind == "qwen2_moe" and set(fields.get("layer_types") or ()) == {FULL}:  # 4.57 asks no layer of what type it is.
        fields["use_sliding_window"] = False
    for name in BUILT_IN.keys() & fields.keys() - known:
        value = fields[name]
        if any(item not in BUILT_IN[name] for item in (value if isinstance(value, list) else [value])):
            raise _lacking(kind, f"{name} {_short(value)}")
    return fields


def tokenizer_of_5(name: str, revision: str) -> Any:
    """A tokenizer that transformers 5 wrote, for 4.57; None where it can be read as ever.

    A fast one is what tokenizer.json says: 4.57 does not know each class of 5, and of some it changes what they do (it
    gives Llama's a BOS that they have not).
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config, tokenizer_class_from_name
    from transformers.utils import cached_file

    written = {} if installed() >= 5 else get_tokenizer_config(name, revision=revision)
    fields = tokenizer_in_4(written, tokenizer_class_from_name(f"{written.get('tokenizer_class')}Fast"))
    if fields == written:
        return None
    changed = {key: fields[key] for key in OF_TOKENIZERS if key in fields}
    if fields["tokenizer_class"] != "PreTrainedTokenizerFast":
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False, **changed)
    cached_file(name, "tokenizer.json", revision=revision)  # Or it would look for the files of another class.
    return PreTrainedTokenizerFast.from_pretrained(name, revision=revision, **changed)


def tokenizer_in_4(written: Fields, own: Any) -> Fields:
    """What transformers 5 writes in tokenizer_config.json, in words in which both series read the same tokenizer.

    `own` is the tokenizer, or its class, or None where there is none of that name.
    """
    kind, extra = written.get("tokenizer_class") or "", written.get("extra_special_tokens") or {}
    if not (kind == "TokenizersBackend" or "backend" in written or isinstance(extra, list)):
        return written
    fields = dict(written)
    if isinstance(extra, list):
        fields["additional_special_tokens"], extra = extra, {}
    text = {key: value for key, value in written.items() if key.endswith("_token") and isinstance(value, str | dict)}
    fields["extra_special_tokens"] = {key: text[key] for key in text.keys() - NAMED_TOKENS} | extra
    if kind == "TokenizersBackend" or written.get("backend") == "tokenizers":
        fields["tokenizer_class"] = "PreTrainedTokenizerFast"
        for key, default in (("model_input_names", ["input_ids", "attention_mask"]), ("padding_side", "right")):
            fields.setdefault(key, getattr(own, key, default))
    return fields


def parameters(kind: Any) -> set[str]:
    """What the constructors of a configuration's class know by name."""
    own = (each for each in kind.__mro__ if each.__module__.startswith("transformers.models"))
    return {name for each in own if "__init__" in vars(each) for name in inspect.signature(each.__init__).parameters}


def installed() -> int:
    """The release line of transformers here, by its first number."""
    import transformers
    from packaging.version import Version

    return Version(transformers.__version__).major


def named_type(parameters: Fields) -> Fields:
    """Parameters whose type is called `rope_type`, and is there."""
    rest = {name: value for name, value in parameters.items() if name not in ("rope_type", "type")}
    return {"rope_type": parameters.get("rope_type", parameters.get("type", "default")), **rest}


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) and "model_type" in value


def _numbers(value: Any) -> Any:
    """With numbers that JSON cannot express, such as infinity, instead of the dictionaries that encode them."""
    if isinstance(value, dict):
        tagged = value.keys() == {"__float__"}
        return float(value["__float__"]) if tagged else {name: _numbers(item) for name, item in value.items()}
    return [_numbers(item) for item in value] if isinstance(value, list) else value


def _rename(fields: Fields, kind: str, known: set[str]) -> None:
    for new, old in RENAMED.get(kind, {}).items():
        if new in fields:
            fields[old] = fields[new] if new in known else fields.pop(new)
    if kind in LAYERS:
        name, names = LAYERS[kind]
        fields[name] = [names.get(layer, layer) for layer in fields.get(name) or []] or None


def _set_rope(fields: Fields, kind: str, known: set[str]) -> None:
    """Take `rope_parameters` out of the fields, and put in what says the same."""
    parameters = fields.pop("rope_parameters", None)
    if not parameters:
        return
    if fields.get("rope_scaling"):  # Where a file has both, transformers 5 takes the older.
        parameters = {"rope_theta": fields.get("rope_theta"), **fields["rope_scaling"]}
    rope = ROPES.get(kind, Rope())
    full, sliding = _by_layer(kind, parameters, fields.get("layer_types") or ())
    scaling = _scaling(fields, kind, rope, full)
    theta = full.get("rope_theta")
    expected = {**(full if rope.sliding_scaled else PLAIN), "rope_theta": theta}
    if sliding and rope.sliding_theta:
        expected["rope_theta"] = fields[rope.sliding_theta] = sliding.get("rope_theta")
    if sliding and sliding != expected:
        raise _lacking(kind, f"rope_parameters {_short(sliding)} for {SLIDING} beside {_short(full)} for {FULL}")
    *part, name = rope.theta.split(".")
    if theta is not None:
        (fields[part[0]] if part else fields)[name] = theta
        fields.update({rope.unread: theta} if rope.unread else {})
    # Where a class has no such parameter, transformers 5 does not heed it either. Bamba's is not called by its name.
    if "partial_rotary_factor" in full and (rope.partial in known or kind == "bamba"):
        fields[rope.partial] = full["partial_rotary_factor"]
    fields["rope_scaling"] = scaling


def _by_layer(kind: str, parameters: Fields, layers: Any) -> tuple[Fields, Fields | None]:
    """The parameters of all layers, or of those with full attention, and of those with a sliding window."""
    nested = {name: value for name, value in parameters.items() if isinstance(value, dict) or name in layers}
    if not nested:
        return named_type(parameters), None
    used = {name: named_type(value or {"rope_type": None}) for name, value in nested.items()}
    used = {name: value for name, value in used.items() if name in (layers or used)}
    sliding = used.pop(SLIDING, None)
    full = used.pop(FULL, None) or sliding or named_type(next(iter(nested.values())))
    if other := next((name for name, value in used.items() if value != full), None):
        raise _lacking(kind, f"rope_parameters {_short(used[other])} for {other} beside {_short(full)} for others")
    return full, sliding


def _scaling(fields: Fields, kind: str, rope: Rope, full: Fields) -> Fields | None:
    """The value for `rope_scaling`."""
    scaling = {name: value for name, value in full.items() if name not in ("rope_theta", "partial_rotary_factor")}
    named = scaling["rope_type"]
    if named not in rope.types:
        raise _lacking(kind, f"rope_type {named!r} in rope_parameters")
    if named == "longrope":
        _extend(fields, scaling)
    if named == "dynamic" and kind.startswith("hunyuan"):
        scaling.setdefault("alpha", None)
    if rope.keys is None:
        return None if scaling == PLAIN and kind not in SCALED_BY_DEFAULT else scaling
    if named == "default":
        return None
    more = {name for name, value in scaling.items() if value is not None} - {"rope_type", *rope.keys, *POSITIONS}
    if more:
        raise _lacking(kind, f"{', '.join(sorted(more))} in rope_parameters")
    return {"type": named, **{name: scaling[name] for name in rope.keys}}


def _extend(fields: Fields, scaling: Fields) -> None:
    """4.57 finds the first length of the model outside of `rope_scaling`, and takes the factor from both lengths."""
    first = fields["original_max_position_embeddings"] = scaling["original_max_position_embeddings"]
    by_length = fields["max_position_embeddings"] / first
    factor = scaling.get("factor") or by_length
    if scaling.get("attention_factor") is None and factor != by_length:
        scaling["attention_factor"] = math.sqrt(1 + math.log(factor) / math.log(first)) if factor > 1 else 1.0


def _lacking(kind: str, what: str) -> ModelError:
    import transformers

    return ModelError(
        f"{what}: the {kind} of transformers {transformers.__version__} does not support it, and would silently be "
        'another model; it needs transformers 5 (pip install "transformers>=5")'
    )


def _short(value: Any) -> str:
    return text if len(text := repr(value)) < 100 else f"{text[:100]}..."
