"""Configurations: loaded, or built for a model from scratch, and checked against the tokenizer."""

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from clm_core.backend import Model
from clm_core.config import GenerateConfig, TokenizerOptions, TrainConfig
from clm_core.counts import with_noun
from clm_core.errors import ModelError, OptionError, did_you_mean, similar
from clm_core.models.adapters.base import check_base
from clm_core.models.adapters.finding import find_adapter, where_is
from clm_core.models.architectures import COUNT_FROM_PADDING, count_embeddings, count_positions, text_part
from clm_core.models.causality import make_causal
from clm_core.models.generation_settings import check_settings
from clm_core.models.loading import loaded
from clm_core.models.overrides import add_aliases, overridden, overridden_checkpoint, split, width_of_heads
from clm_core.models.presence import look_for
from clm_core.models.series import translated
from clm_core.models.sizes import check_sizes
from clm_core.models.vocabulary import count_ids
from clm_core.paths import CONFIGURATION

Say = Callable[[str], None]


def load_architecture(options: TokenizerOptions, say: Say = lambda text: None) -> Any:
    """The configuration of the model at `model_name_or_path`, as a causal language model; `say` reports a change.

    Raises:
        OptionError: no model is named.
        ModelError: it cannot be found or read.
    """
    if options.model_name_or_path is None:
        raise OptionError("no model is given: give --model-name-or-path a folder, or a name on the Hub")
    _check_folder(Path(options.model_name_or_path))
    return _as_causal(load_config("model", options.model_name_or_path, options.model_revision), say)


def existing_model(model: Model | str | os.PathLike[str]) -> Model:
    """A model, or an adapter with its model, as a backend takes it; returns a `Model` unchanged.

    It is in a folder or on the Hub.

    Raises:
        ModelError: it cannot be found or read.
    """
    if isinstance(model, Model):
        return model
    name = os.fspath(model)
    look_for("model", name)
    return described(TokenizerOptions(model_name_or_path=name), seed=GenerateConfig().seed)


def described(
    options: TokenizerOptions, say: Say = lambda text: None, *, seed: int, ignore_unused_weights: bool = False
) -> Model:
    """The model at `model_name_or_path`, or the adapter there with its model, as a backend takes it.

    Raises:
        OptionError: none is named.
        ModelError: it cannot be found or read.
    """
    name, revision = options.model_name_or_path, options.model_revision
    adapter = find_adapter(name, revision) if name else None
    if adapter:
        check_base(adapter)
    model = Model(
        name_or_path=adapter.base if adapter else name,
        revision=adapter.base_revision if adapter else revision,
        architecture=load_architecture(where_is(options, CONFIGURATION) if adapter else options, say),
        seed=seed,
        ignore_unused_weights=ignore_unused_weights,
        adapter=adapter,
    )
    check_settings(model)
    return model


def new_architecture(options: TrainConfig, tokenizer: Any, say: Say = lambda text: None) -> Any:
    """The configuration of a model from scratch, with an embedding for every id of the tokenizer.

    It is that of a causal language model; `say` reports if that is not the architecture's default.

    Raises:
        OptionError: neither config_name nor model_type is given, or the overrides do not fit.
        ModelError: the configuration cannot be found or read.
    """
    if options.config_name:
        architecture = load_config("configuration", options.config_name, "main")
    else:
        architecture = _default_config(options.model_type)
    _fit_tokenizer(text_part(architecture), tokenizer)
    if overrides := options.config_overrides:
        architecture = overridden(architecture, overrides)
        if note := width_of_heads(architecture, overrides):
            say(note)
    add_aliases(architecture)
    return _as_causal(architecture, say)


def changed(model: Model, overrides: str, say: Say = lambda text: None) -> Model:
    """An existing model with other fields in its configuration; `say` reports each.

    Raises:
        OptionError: there is no such field, it cannot have the value, or its weights are made for another.
    """
    architecture = overridden_checkpoint(model.architecture, overrides, say)
    return replace(model, architecture=_as_causal(architecture, say), overridden=tuple(split(overrides)))


def resized(model: Model, tokenizer: Any, say: Say = lambda text: None) -> Model:
    """A model that is to have an embedding for every id of the tokenizer; `say` reports how many are added.

    Raises:
        ModelError: it does not say how many it has.
    """
    rows, needed = count_embeddings(model.architecture), count_ids(tokenizer)
    if rows is None:
        raise ModelError(f"resize_embeddings: the configuration of {model.name_or_path} has no vocab_size")
    if needed <= rows:
        there = with_noun(rows, "embedding")
        say(f"resize_embeddings adds none: the model has {there}, and the tokenizer needs {needed:,}")
        return model
    architecture = copy.deepcopy(model.architecture)
    text_part(architecture).vocab_size = needed
    say(f"resize_embeddings: {rows:,} -> {with_noun(needed, 'embedding')}; each new one is the mean of the others")
    return replace(model, architecture=architecture, vocabulary=needed)


def check_fits(architecture: Any, tokenizer: Any, block_size: int, *, new: bool = False) -> None:
    """Make sure that every id has an embedding, and every token of a block a position.

    Raises:
        ModelError: the tokenizer has ids for which the model has no embeddings, or there can be no such model.
        OptionError: block_size exceeds the positions of the model.
    """
    check_sizes(architecture)
    rows, needed = count_embeddings(architecture), count_ids(tokenizer)
    if rows is not None and needed > rows:
        own = (
            "use the model's own tokenizer (leave --tokenizer-name out), add embeddings in a training with "
            "--resize-embeddings, or train from scratch with --model-type"
        )
        way_out = f"leave vocab_size out of --config-overrides, or give vocab_size={needed}" if new else own
        raise ModelError(
            f"the tokenizer has ids up to {needed - 1}, but the model has only "
            f"{with_noun(rows, 'embedding')}: {way_out}"
        )
    positions = count_positions(architecture)
    if positions is not None and positions < block_size:
        raise OptionError(
            f"block_size {block_size} exceeds the {with_noun(positions, 'position')} of the model: use {positions}"
        )


def load_config(what: str, name: str, revision: str) -> Any:
    """The configuration in a folder or on the Hub.

    Raises:
        ModelError: it cannot be found or read.
    """
    from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

    def load() -> Any:
        written, _ = PretrainedConfig.get_config_dict(name, revision=revision)
        fields = translated(written)
        if fields == written or fields["model_type"] not in CONFIG_MAPPING:
            return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        return CONFIG_MAPPING[fields["model_type"]].from_dict(fields, name_or_path=name)

    return loaded(what, name, load)


def _check_folder(folder: Path) -> None:
    """Make sure that a folder, if the name is one, contains a complete model."""
    if folder.is_dir() and not (folder / CONFIGURATION).is_file():
        inside = sorted(folder.glob(f"*/{CONFIGURATION}"), key=lambda path: path.stat().st_mtime_ns)
        hint = (
            did_you_mean(*(path.parent for path in inside[-1:]))
            or "; name a folder that has one, such as that of a finished run"
        )
        raise ModelError(f"{folder} is not a model: it has no config.json{hint}")


def _default_config(model_type: str | None) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig

    if model_type is None:
        raise OptionError("a model from scratch needs --model-type, such as gpt2, or --config-name")
    if model_type not in CONFIG_MAPPING:
        hint = did_you_mean(*similar(model_type, CONFIG_MAPPING.keys(), most=3))
        raise OptionError(f"model_type {model_type!r} is unknown to transformers{hint}")
    return AutoConfig.for_model(model_type)


def _fit_tokenizer(text: Any, tokenizer: Any) -> None:
    text.vocab_size = count_ids(tokenizer)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        token = getattr(tokenizer, name)
        if token is None and name == "pad_token_id" and text.model_type in COUNT_FROM_PADDING:
            continue
        if token and name == "pad_token_id" and text.model_type == "xglm" and token > 1:
            token = None  # Its class blanks the position of that number; the first two are unused.
        try:
            setattr(text, name, token)
        except Exception:  # transformers 5 has types for them, and some architectures insist on a number.
            if token is not None:
                raise
            setattr(text, name, tokenizer.eos_token_id or 0)


def _as_causal(architecture: Any, say: Say) -> Any:
    if changed := make_causal(architecture):
        say(changed)
    return architecture
