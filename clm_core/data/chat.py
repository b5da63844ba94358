"""Renders conversations with the tokenizer's chat template, and marks what the assistant says."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
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

OF_TOOLS = re.compile(r"\btools\b")
"""The variable with the tools, in a template that writes them."""

MARK = "mark it in the template with {% generation %} and {% endgeneration %}, or "

PROBE = [{"role": "user", "content": "a"}, {"role": ASSISTANT, "content": "b"}]

PART = {"type": "text", "text": "a part"}
"""A part of a message, which templates of models that read pictures take in a list."""

Messages = list[dict[str, Any]]


class ChatTemplate:
    """The template of a tokenizer.

    Raises:
        OptionError: the tokenizer has none, or several and no default.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise OptionError(
                "messages_column: this tokenizer has no chat template: give the tokenizer of a chat model with "
                "--tokenizer-name, or one text for each row, as with --text-template"
            )
        self._tokenizer, self._special = tokenizer, sorted(special_tokens(tokenizer), key=len, reverse=True)
        try:
            self._plain: str = tokenizer.get_chat_template()
            self._for_tools: str = tokenizer.get_chat_template(tools=[])
        except ValueError as error:
            raise OptionError(f"messages_column: {first_line(error)}") from None

    def identity(self) -> dict[str, str]:
        """SHA-256 of the template, by which prepared data name it."""
        both = "\0".join(dict.fromkeys((self._plain, self._for_tools)))
        return {"chat_template": hashlib.sha256(both.encode()).hexdigest()}

    def ends_with(self, token: str) -> bool:
        """Whether a conversation ends with this token."""
        try:
            return _Text(self._tokenizer, self._plain, PROBE).whole.rstrip().endswith(token)
        except Exception:  # Whatever a template raises for messages that it does not expect.
            return False

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the template writes the text of a part, and not the part as Python or JSON writes it."""
        try:
            text = _Text(self._tokenizer, self._plain, [{"role": "user", "content": [PART]}, *PROBE[1:]]).whole
        except Exception:  # As above: most templates put the content and a string together.
            return False
        return PART["text"] in text and str(PART) not in text and json.dumps(PART) not in text

    def _with_text(self, message: dict[str, Any], place: str) -> dict[str, Any]:
        """A message whose content is a string, where the template takes no parts."""
        content = message.get("content")
        if not isinstance(content, str | list | dict | None):
            raise DataError(f"{place}: its content is {str(content)[:40]}, not text")
        if not isinstance(content, list) or self._takes_parts:
            return message
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise DataError(
                    f"{place}: its content has a part {str(part)[:40]!r}, and the tokenizer's chat template takes "
                    "text: leave this part out, or give the tokenizer of a model that takes it with --tokenizer-name"
                )
        return {**message, "content": "".join(part["text"] for part in content)}

    def rendered(self, conversation: Conversation, *, masks: bool) -> Rendered | None:
        """A conversation as a text; None if something is to be masked, and the assistant says nothing in it.

        Raises:
            DataError: the template rejects it, does not write its tools or, without `{% generation %}`, it is not plain
                where a turn begins.
        """
        place = conversation.place
        source = self._for_tools if conversation.tools else self._plain
        if conversation.tools and not OF_TOOLS.search(source):
            raise DataError(
                f"{place}: the tokenizer's chat template does not write tools: give the tokenizer of a model that "
                "knows them with --tokenizer-name, or take the column 'tools' out of the data"
            )
        said = [self._with_text(each, f"{place}, message {at}") for at, each in enumerate(conversation.messages, 1)]
        messages, tools = (self._quoted(part, place) for part in (said, conversation.tools))
        try:
            text = _Text(self._tokenizer, source, messages, tools, place)
            marked = text.marked(conversation.prompt) if masks else text.whole
        except DataError:
            raise
        except Exception as error:  # A template may raise anything, such as for roles that it does not know.
            raise DataError(f"{place}: the tokenizer's chat template fails: {first_line(error)}") from None
        return _parsed(encodable(marked, place) or "", masks=masks)

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


@dataclass(frozen=True)
class _Text:
    """What a template makes of some messages."""

    tokenizer: Any
    source: str
    messages: Messages
    tools: Messages | None = None
    place: str = ""

    @cached_property
    def whole(self) -> str:
        """The text."""
        return self._render(self.messages)

    def marked(self, prompt: int | None) -> str:
        """The text with marks around what counts: what follows `prompt` messages, or what the assistant says."""
        if prompt is not None:
            is_said = self.messages[prompt]["role"] == ASSISTANT
            start = self._until(prompt, prompt + 1, add_prompt=is_said, mark="")
            return "".join([self.whole[:start], START, self.whole[start:], END])
        source = GENERATION.sub(rf'\1%}}{{% print "{START}" \2', self.source)
        source = ENDGENERATION.sub(rf'\1 print "{END}" %}}{{%\2', source)
        return self._turn_by_turn() if source == self.source else self._render(self.messages, source)

    def _turn_by_turn(self) -> str:
        done, parts = 0, []
        for number, message in enumerate(self.messages, 1):
            if message["role"] == ASSISTANT:
                start, end = self._until(number - 1, number, add_prompt=True), self._until(number, number)
                parts += [self.whole[done:start], START, self.whole[start:end], END]
                done = end
        return "".join([*parts, self.whole[done:]])

    def _until(self, count: int, number: int, *, add_prompt: bool = False, mark: str = MARK) -> int:
        """How many characters of the whole text the first messages are, to know where the one of a number is."""
        if not count:
            return 0  # Many a template fails without any, or adds a message of its own.
        found = self._render(self.messages[:count], add_prompt=add_prompt)
        if not self.whole.startswith(found):
            raise DataError(
                f"{self.place}, message {number}: the tokenizer's chat template writes earlier messages in another "
                f"way once others follow, so that it is not plain what the assistant says: {mark}give "
                "--no-completion-only-loss"
            )
        return len(found)

    def _render(self, messages: Messages, source: str | None = None, *, add_prompt: bool = False) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                tools=self.tools,
                chat_template=source or self.source,
                tokenize=False,
                add_generation_prompt=add_prompt,
            )
        )


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
