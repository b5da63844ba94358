"""The changes of a configuration that are tried, one field at a time, to see whether a class reads the field."""

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

from shrink import EXCEPTIONS, shrink, tiny_fields
from transformers import CONFIG_MAPPING, PretrainedConfig

from clm_core.models.architectures import text_part

Path = tuple[str, ...]
"""The names that lead to a field, from the outermost configuration: `("text_config", "rope_theta")`."""

UNTRIED = re.compile(
    r"(vocab_size|hidden_size|d_model|n_embd|intermediate_size|num_hidden_layers|n_layers?|layers|model_type)$"
    r"|init|std$|drop|summary|^output_|^use_cache$|^return_dict$|^_|dtype|^is_decoder$|^is_encoder_decoder$|^add_cross"
    r"|^transformers|version|(image|video|audio|vision|speech|mm)_|^(vision|audio)|_config$|backbone|_coef$|quant"
    r"|^(max_position_embeddings|n_positions|n_ctx|(num_|n_)?(attention_|key_value_|kv_)?heads?|head_dim|n_inner|ffn_dim)$"
    r"|^num_(local_)?experts$|^(bos|eos|sep|decoder_start|boi|eoi|boa|mask|forced_\w+)_token|label|kernels$|^lm_head_bias_only$|^name_or_path$"
)
"""Sizes, which no class can do without, and what has no part in the logits of a text in inference mode."""

ACTIVATIONS = ("relu", "gelu", "silu")
STRINGS: dict[str, tuple[str, ...]] = {
    r"act(ivation)?($|_)|afn|act_fn|hidden_act|activation": ACTIVATIONS,
    r"position_embedding_type": ("absolute", "relative_key", "relative_key_query", "rotary", "alibi", "rope", "nope"),
    r"scoring_func": ("softmax", "sigmoid"),
    r"topk_method": ("greedy", "group_limited_greedy", "noaux_tc"),
    r"attn_type": ("uni", "bi"),
    r"norm_type|normalization": ("rmsnorm", "layernorm"),
}
"""For a string whose name matches: what else it can be."""

ROPE = (
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
)
INTO_ROPE = re.compile(r"rope_theta$|^rope_scaling$|rope_local_base_freq$|^partial_rotary_factor$|^rotary_pct$")
"""What transformers 5 makes its rope_parameters of, where these are not given too."""

NULLABLE = re.compile(r"cap|clip|limit|window|multiplier|scal|chunk")
"""Numbers that mean nothing of their kind where they are None."""

READ = re.compile(r'getattr\(\s*(?:self\.)?config\s*,\s*"(\w+)"')


def configuration(model_type: str, path: Path = (), value: Any = None) -> PretrainedConfig:
    """The tiny configuration of a type, with one of its fields changed if a path is given."""
    config = shrink(model_type)
    if not path:
        return config
    fields = tiny_fields(config, EXCEPTIONS.get(model_type, {}))
    inner = fields
    for name in path[:-1]:  # The parts that lead there.
        found = inner.get(name, getattr(config, name, None))
        inner[name] = dict(found.to_dict() if isinstance(found, PretrainedConfig) else found)
        inner = inner[name]
    inner[path[-1]] = value
    if INTO_ROPE.search(path[-1]):
        inner.pop("rope_parameters", None)
    return type(config)(**fields)


def changes(model_type: str, more: dict[Path, list[Any]]) -> dict[Path, list[Any]]:
    """By field: the values that are tried; those in `more` are added, if the type has none for the field."""
    config = shrink(model_type)
    found = dict(_of(config, ()))
    text = text_part(config)
    for name, part in vars(config).items():
        if part is text:
            found |= dict(_of(text, (name,)))
    return {**{path: values for path, values in more.items() if not UNTRIED.search(path[-1])}, **found}


def default(model_type: str, path: Path) -> dict[str, Any]:
    """`{"default": value}` of a field; nothing of one that is not the same in a tiny and in a usual configuration."""
    tiny, usual = (_at(config, path) for config in (shrink(model_type), CONFIG_MAPPING[model_type]()))
    return {"default": tiny} if tiny == usual and tiny is not None else {}


def _at(config: Any, path: Path) -> Any:
    for name in path:
        config = config.get(name) if isinstance(config, dict) else _value(config, name)
    found = config.to_dict() if isinstance(config, PretrainedConfig) else config
    return list(found) if isinstance(found, tuple) else found


def _value(config: Any, name: str) -> Any:
    """A field; None where there is none, or where transformers 5 has one for each layer, which it raises about."""
    try:
        return getattr(config, name, None)
    except RuntimeError:
        return None


def _of(config: PretrainedConfig, before: Path) -> Iterator[tuple[Path, list[Any]]]:
    common = set(PretrainedConfig().to_dict()) - {"tie_word_embeddings", "pad_token_id", "sliding_window"}
    values = {name: value for name, value in config.to_dict().items() if name not in common}
    values |= dict.fromkeys(_read_by_name(config) - values.keys() - common)
    for name, value in values.items():
        if UNTRIED.search(name):
            continue
        if isinstance(value, dict) and not name.startswith("rope_"):
            for key, inner in value.items():
                if tried := _alternatives(key, inner):
                    yield (*before, name, key), tried
        elif tried := _alternatives(name, value):
            yield (*before, name), tried


def _read_by_name(config: PretrainedConfig) -> set[str]:
    """The fields that the modules of a model ask for without the configuration declaring them."""
    package = type(config).__module__.rpartition(".")[0]
    sources = [module for name, module in list(sys.modules.items()) if name.startswith(f"{package}.modeling_")]
    return {
        name for module in sources if "_tf_" not in module.__name__ for name in READ.findall(inspect.getsource(module))
    }


def _alternatives(name: str, value: Any) -> list[Any]:
    if name.endswith("token_id"):
        return [5]
    if isinstance(value, bool):
        return [not value]
    if value is None:
        return list(ROPE) if name == "rope_scaling" else [] if name.startswith("rope_") else [0.5, 3, True]
    if isinstance(value, int | float):
        return [*_numbers(name, value), *([None] if NULLABLE.search(name) else [])]
    if isinstance(value, str):
        return [
            other for pattern, all in STRINGS.items() if re.search(pattern, name) for other in all if other != value
        ]
    if isinstance(value, dict):
        return _ropes(value)
    if isinstance(value, list | tuple) and value:
        return _lists(list(value))
    return []


def _numbers(name: str, value: float) -> list[Any]:
    if "eps" in name:
        return [0.3]
    if "theta" in name or "base" in name:
        return [7.0]
    if isinstance(value, float):
        return [value * 0.4 if value else 0.3]
    return [value // 2, value * 2, value + 1] if value > 1 else [value + 1, 2 * value + 4]


def _ropes(value: dict[str, Any]) -> list[Any]:
    if value and all(isinstance(inner, dict) for inner in value.values()):  # By type of layer.
        return [{**value, kind: other} for kind, inner in value.items() for other in _ropes(inner)]
    changed = [{**value, key: other} for key, inner in value.items() for other in _alternatives(key, inner)[:1]]
    return [*changed, *({**value, **rope} for rope in ROPE)]


def _lists(value: list[Any]) -> list[Any]:
    if all(isinstance(item, bool) for item in value):
        return [[not item for item in value]]
    if all(isinstance(item, int | float) for item in value):
        return [[item * 2 for item in value], value[::-1]]
    return [other for other in (value[::-1], value[:1] * len(value), value[-1:] * len(value)) if other != value]
