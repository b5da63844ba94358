"""`clm generate`: continue a prompt."""

import sys
from collections.abc import Sequence
from typing import Any

from clm_core.backend import GenerationJob
from clm_core.commands.call import Call
from clm_core.config import GenerateConfig
from clm_core.counts import with_noun
from clm_core.data.tokenization import encoder
from clm_core.errors import OptionError
from clm_core.inputs import announce, check_type, check_undamaged, named_model, with_dtype
from clm_core.launch.devices import check_alone
from clm_core.models.architectures import count_positions
from clm_core.models.configurations import check_fits
from clm_core.models.decoding import continuation
from clm_core.models.generation_settings import load_ends
from clm_core.models.ignored_fields import attention
from clm_core.models.templates import template_of
from clm_core.models.tokenizers import load_tokenizer
from clm_core.options import resolve
from clm_core.options.resolve import Request
from clm_core.results import GenerationResult
from clm_core.screen.exit_codes import ExitCode
from clm_core.screen.progress import Progress
from clm_core.screen.standard_streams import read_input


def run(call: Call) -> ExitCode:
    """Carry out the command line."""
    prompt = call.argument if call.argument is not None else _read_prompt()
    with call.session() as (backend, progress):
        request = resolve.generation(call.given, file=call.config, backend=backend)
        call.start(backend, request.config)
        result = generate(request, prompt, progress)
    call.print(result, lambda: result.prompt + result.completion)
    return ExitCode.DONE


def generate(request: Request[GenerateConfig], prompt: str, progress: Progress) -> GenerationResult:
    """Continue a prompt."""
    config, backend = request.config, request.backend
    check_alone(backend, "generate")
    check_undamaged(config, progress)
    announce(config, progress)
    model = named_model(config, progress, seed=config.seed)
    check_type(model, backend)
    attention(model.architecture, backend.name)
    tokenizer = load_tokenizer(config)
    check_fits(model.architecture, tokenizer, block_size=1)
    ids = prompt_ids(tokenizer, prompt)
    _check_room(model.architecture, len(ids), config.max_new_tokens)
    ends = load_ends(config, tokenizer)
    config = with_dtype(config, model, progress)
    new = _until(
        ends, backend.generate(GenerationJob(model=model, prompt=tuple(ids), eos_token_ids=ends, config=config))
    )
    return GenerationResult(
        backend=backend.name,
        model=str(config.model_name_or_path),
        prompt=prompt,
        completion=continuation(tokenizer, ids, new),
        tokens=len(new),
    )


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The ids of a prompt, open at the end: what the tokenizer's template closes a text with is taken off again.

    Raises:
        OptionError: it is not UTF-8, or it is empty and no token begins a text.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise OptionError("the prompt is not UTF-8") from None
    ids: list[int] = encoder(tokenizer)([prompt]).ids.tolist()
    ids = ids[: len(ids) - len(template_of(tokenizer).after)]
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if not ids and start is None:
        raise OptionError("the prompt is empty, and this tokenizer has no token to start a text with")
    return ids or [start]


def _read_prompt() -> str:
    if sys.stdin is not None and sys.stdin.isatty():
        print("prompt (end with Ctrl-D):", file=sys.stderr)
    return read_input()


def _until(ends: Sequence[int], new: Sequence[int]) -> list[int]:
    """The new tokens up to the first that ends them: a backend may support only one such token."""
    last = next((index for index, token in enumerate(new) if token in ends), len(new))
    return list(new[: last + 1])


def _check_room(architecture: Any, prompt: int, new: int) -> None:
    positions = count_positions(architecture)
    if positions is None or prompt + new <= positions:
        return
    tokens, there = with_noun(prompt, "token"), with_noun(positions, "position")
    if prompt >= positions:
        raise OptionError(f"the prompt has {tokens}, but the model only {there}: use a shorter prompt")
    raise OptionError(
        f"max_new_tokens {new} and the {tokens} of the prompt exceed the {there} of the model: "
        f"use --max-new-tokens {positions - prompt}"
    )
