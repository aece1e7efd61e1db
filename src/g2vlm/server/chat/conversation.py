"""From the messages of a request to a question, the turns before it and the photos it is about."""

from collections.abc import Sequence
from dataclasses import dataclass

from g2vlm.inference.perception import Turn
from g2vlm.server.chat.schemas import AssistantMessage, Message, SystemMessage, UserMessage
from g2vlm.server.media.parts import FilePart, ImagePart, TextPart, VideoPart
from g2vlm.server.web.errors import ParameterError


@dataclass(frozen=True)
class Conversation:
    """What the model reads."""

    media: tuple[ImagePart | VideoPart | FilePart, ...]
    """In the order of the messages."""
    turns: tuple[Turn, ...]
    question: str


def read_messages(messages: Sequence[Message]) -> Conversation:
    """Put messages into the form that the model knows: photos first, then questions and answers by turns.

    Messages of one side that follow each other are read as one. What the system says is the beginning of the
    first question, because the model knows one system prompt only, its own.

    Raises:
        ParameterError: the messages do not begin and end with a question, or there is nothing to look at.
    """
    media: list[ImagePart | VideoPart | FilePart] = []
    sides: list[tuple[str, list[str]]] = []
    beginning: list[str] = []
    for number, message in enumerate(messages):
        words = _words(message)
        if isinstance(message, SystemMessage):
            if sides:
                raise _refused(
                    number, "Expected system messages before all others, got one after a question."
                )
            beginning += words
            continue
        if isinstance(message, UserMessage) and not isinstance(message.content, str):
            media += [part for part in message.content if not isinstance(part, TextPart)]
        if not sides or sides[-1][0] != message.role:
            sides.append((message.role, []))
        sides[-1][1].extend(words)
    texts = ["\n".join(words) for _, words in sides]
    if not sides or sides[0][0] != "user" or sides[-1][0] != "user":
        raise _refused(None, "Expected messages that begin and end with one of the user.")
    if not media:
        raise _refused(
            None,
            "Expected at least one photo or video, got words only: this model answers about what it sees.",
        )
    texts[0] = "\n".join([*beginning, texts[0]])
    if not texts[-1].strip():
        raise _refused(
            len(messages) - 1, "Expected a question, got an empty text: say what you want to know."
        )
    turns = tuple(zip(texts[0:-1:2], texts[1:-1:2], strict=True))
    return Conversation(tuple(media), turns, texts[-1])


def _words(message: SystemMessage | UserMessage | AssistantMessage) -> list[str]:
    if isinstance(message.content, str):
        return [message.content] if message.content else []
    return [part.text for part in message.content if isinstance(part, TextPart) and part.text]


def _refused(number: int | None, text: str) -> ParameterError:
    return ParameterError(text, "messages" if number is None else f"messages.{number}", "invalid_messages")
