"""Photos that come inside a request, as `data:` URLs."""

import base64
import binascii
import re

from g2vlm.server.guard.refusals import RefusedError, TooLargeError

_HEAD = re.compile(r"data:([a-z0-9.+-]+/[a-z0-9.+-]+)?((?:;[a-z0-9-]+=[a-z0-9._-]+)*)(;base64)?,", re.I)
_MOST_HEAD = 256


def parse_data_url(url: str, max_bytes: int) -> tuple[str | None, bytes]:
    """Take a `data:` URL apart.

    Args:
        url: "data:image/png;base64,...".
        max_bytes: Largest content.

    Returns:
        The declared media type, if any, and the content.

    Raises:
        TooLargeError: More bytes than allowed; told before they are decoded.
        RefusedError: Not such a URL, or damaged.
    """
    head = _HEAD.match(url[:_MOST_HEAD])
    if head is None or not head.group(3):
        raise RefusedError(
            "Expected a photo as  data:image/png;base64,...  got something else: encode its bytes in base64."
        )
    encoded = url[head.end() :]
    # Four characters hold three bytes; white space and padding only make it less.
    if len(encoded) // 4 * 3 > max_bytes + 3:
        raise TooLargeError(f"Expected at most {max_bytes} bytes in a data URL, got more: make it smaller.")
    try:
        content = base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError) as error:
        raise RefusedError("Expected base64 in a data URL, got something else: encode it again.") from error
    if len(content) > max_bytes:
        raise TooLargeError(f"Expected at most {max_bytes} bytes in a data URL, got {len(content)}.")
    if not content:
        raise RefusedError("Expected a photo in a data URL, got 0 bytes.")
    return head.group(1), content
