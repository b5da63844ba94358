"""The chat template of a tokenizer: makes a conversation one text, and says where in it the assistant speaks."""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from clm_core.data.columns import encodable
from clm_core.data.texts import Conversation, Rendered
from clm_core.errors import DataError, OptionError, first_line
from clm_core.models.vocabulary import special_tokens

ASSISTANT = "assistant"
"""The role whose messages count."""

CUT, START, END = "\ufde0", "\ufde1", "\ufde2"
"""Noncharacters that mark places in a text while it is rendered: within what is no special token, and around a turn."""

MARKS = re.compile(f"[{CUT}{START}{END}]")

GENERATION = re.compile(r"(\{%[-+]?\s*generation\s*)([-+]?%\})")
ENDGENERATION = re.compile(r"(\{%[-+]?)(\s*endgeneration\s*[-+]?%\})")
"""The tags around what the assistant says; the space around them is theirs to keep or to take away."""

PROBE = [{"role": "user", "content": "a"}, {"role": ASSISTANT, "content": "b"}]

Messages = list[dict[str, Any]]


class ChatTemplate:
    """The template of a tokenizer.

    Raises:
        OptionError: the tokenizer has none.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise OptionError(
                "messages_column: this tokenizer has no chat template: give the tokenizer of a chat model with "
                "--tokenizer-name, or one text for each row, as with --text-template"
            )
        self._tokenizer, self._special = tokenizer, sorted(special_tokens(tokenizer), key=len, reverse=True)
        self._source: str = tokenizer.get_chat_template()
        self._marked = ENDGENERATION.sub(
            rf'\1 print "{END}" %}}{{%\2', GENERATION.sub(rf'\1%}}{{% print "{START}" \2', self._source)
        )
        self.has_generation = self._marked != self._source
        """Whether the template says itself what is generated."""

    def identity(self) -> dict[str, str]:
        """SHA-256 of the template, by which prepared data name it."""
        return {"chat_template": hashlib.sha256(self._source.encode()).hexdigest()}

    def ends_with(self, token: str) -> bool:
        """Whether a conversation ends with this token."""
        try:
            return self._render(PROBE).rstrip().endswith(token)
        except Exception:  # Whatever a template raises for messages that it does not expect.
            return False

    def rendered(self, conversation: Conversation, *, masks: bool) -> Rendered | None:
        """A conversation as a text; None if something is to be masked, and the assistant says nothing in it.

        Raises:
            DataError: the template refuses it or, without `{% generation %}`, it is not plain where a turn begins.
        """
        place = conversation.place
        messages = [self._quoted(message, place) for message in conversation.messages]
        try:
            marked = self._with_turns(messages, place) if masks else self._render(messages)
        except DataError:
            raise
        except Exception as error:  # A template may raise anything, such as for roles that it does not know.
            raise DataError(f"{place}: the tokenizer's chat template fails: {first_line(error)}") from None
        return _parsed(encodable(marked, place) or "", masks=masks)

    def _with_turns(self, messages: Messages, place: str) -> str:
        """The text, with marks around what the assistant says."""
        if self.has_generation:
            return self._render(messages, self._marked)
        whole, done, parts = self._render(messages), 0, []
        for number, message in enumerate(messages):
            if message["role"] == ASSISTANT:
                start = self._prefix(messages[:number], whole, f"{place}, message {number + 1}", add_prompt=True)
                end = self._prefix(messages[: number + 1], whole, f"{place}, message {number + 1}", add_prompt=False)
                parts += [whole[done:start], START, whole[start:end], END]
                done = end
        return "".join([*parts, whole[done:]])

    def _prefix(self, messages: Messages, whole: str, place: str, *, add_prompt: bool) -> int:
        """How many characters of the whole text some messages at its start are."""
        if not messages:
            return 0  # Many a template fails without any, or adds a message of its own.
        found = self._render(messages, add_prompt=add_prompt)
        if not whole.startswith(found):
            raise DataError(
                f"{place}: the tokenizer's chat template writes earlier messages in another way once others follow, so "
                "that it is not plain what the assistant says: mark it in the template with {% generation %} and "
                "{% endgeneration %}, or give --no-completion-only-loss"
            )
        return len(found)

    def _render(self, messages: Messages, template: str | None = None, *, add_prompt: bool = False) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                messages, chat_template=template or self._source, tokenize=False, add_generation_prompt=add_prompt
            )
        )

    def _quoted(self, value: Any, place: str) -> Any:
        """A message in whose texts no special token is one, because each is cut in two."""
        if isinstance(value, dict):
            return {name: self._quoted(each, place) for name, each in value.items()}
        if isinstance(value, list):
            return [self._quoted(each, place) for each in value]
        if not isinstance(value, str):
            return value
        if MARKS.search(value):
            raise DataError(f"{place}: {value[:40]!r} has U+FDE0, U+FDE1 or U+FDE2, which are no characters of a text")
        for token in self._special:
            if len(token) > 1 and token in value:
                value = value.replace(token, f"{token[0]}{CUT}{token[1:]}")
        return value


def renderer(template: ChatTemplate, *, masks: bool) -> Callable[[Iterator[Any]], Iterator[Rendered | None]]:
    """What makes texts of the conversations of a source."""
    return lambda documents: (
        None if conversation is None else template.rendered(conversation, masks=masks) for conversation in documents
    )


def _parsed(marked: str, *, masks: bool) -> Rendered | None:
    """A text with marks as one without."""
    pieces, turns, place, start = [""], [], 0, 0
    for part in re.split(f"({MARKS.pattern})", marked):
        match part:
            case "\ufde0":
                pieces.append("")
            case "\ufde1":
                start = place
            case "\ufde2":
                turns += [(start, place)] if place > start else []
            case _:
                pieces[-1] += part
                place += len(part)
    found = Rendered(tuple(pieces), tuple(turns))
    return found if turns or (not masks and found.text.strip()) else None
