"""Server-sent events."""

import json
from typing import Any

EVENTS: dict[str, Any] = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
            "required": ["data"],
        }
    }
}
"""How streams are described."""
END = b"data: [DONE]\n\n"
"""What ends a stream of chat completions."""


def event(content: Any, name: str | None = None) -> bytes:
    """One event with JSON as its data.

    Args:
        content: as JSON can say it.
        name: of the kind of event.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()
