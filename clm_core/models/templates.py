"""What a tokenizer adds around every text."""

from dataclasses import dataclass
from typing import Any

PLACE = "text"


@dataclass(frozen=True)
class Template:
    """The ids before a text, and those after it."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def around(self, ids: list[int]) -> list[int]:
        """The ids of a text with those of the template."""
        return [*self.before, *ids, *self.after]


def template_of(tokenizer: Any) -> Template:
    """The template of a tokenizer, whatever texts it can encode."""
    if tokenizer.is_fast:
        return _of_fast(tokenizer.backend_tokenizer)
    text = -1  # Not the id of any token.
    around: list[int] = tokenizer.build_inputs_with_special_tokens([text])
    index = around.index(text)
    return Template(tuple(around[:index]), tuple(around[index + 1 :]))


def without_space_before(component: Any) -> Any:
    """The JSON of a normalizer or pre-tokenizer, without the space that it puts before a text."""
    match component:
        case {"type": "Prepend"}:
            return None
        case {"type": "Sequence"}:
            (name,) = component.keys() - {"type"}
            kept = [without_space_before(part) for part in component[name]]
            return {**component, name: [part for part in kept if part is not None]}
        case {"type": "Metaspace"}:
            return {**component, "prepend_scheme": "never"}
        case {"type": "ByteLevel"}:
            return {**component, "add_prefix_space": False}
    return component


def _of_fast(backend: Any) -> Template:
    if backend.post_processor is None:
        return Template()
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    # With a vocabulary of one word, so that there is a text to put the template around.
    model = Tokenizer(WordLevel({PLACE: 0}, unk_token=PLACE))
    model.post_processor = backend.post_processor
    encoding = model.encode(PLACE)
    index = encoding.special_tokens_mask.index(0)
    return Template(tuple(encoding.ids[:index]), tuple(encoding.ids[index + 1 :]))
