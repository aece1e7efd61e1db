"""Standard streams that may be closed, full, or unable to show every character."""

import codecs
import contextlib
import os
import sys
from pathlib import Path

from g2vlm.errors import OutputError

SHOW_ANYTHING = "g2vlm_show_anything"
"""Name of the way in which characters are shown that a stream's encoding lacks."""


def prepare_streams() -> None:
    r"""Make the standard streams safe to write to; call this before anything else is opened.

    Characters that a terminal cannot show become escapes (`\u623f`), and bytes of file names that are no
    text come out as they went in. Messages for a closed stderr go nowhere.

    Raises:
        OutputError: stdout is closed, so that nothing could be said about the result.
    """
    _occupy_closed_descriptors()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (open until the process ends)
    codecs.register_error(SHOW_ANYTHING, _show_anything)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=SHOW_ANYTHING)
    if sys.stdout is None:
        raise OutputError(
            "Expected standard output to be open, but it is closed: leave it open, or send it to /dev/null."
        )


class ReaderLeftError(Exception):
    """Whoever read our output has left, as `| head` does: nothing more is wanted, and nothing is wrong."""


class ResultStream:
    """Standard output, for results alone: what cannot be written is told together with what was kept."""

    def __init__(self) -> None:
        self._stream = sys.stdout
        self._kept: list[Path] = []

    @property
    def is_utf8(self) -> bool:
        """Whether every character can be written."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return codecs.lookup(encoding).name == "utf-8"

    def kept(self, path: Path) -> None:
        """Remember a file that holds results already, to name it if stdout fails."""
        self._kept.append(path)

    def write(self, text: str, /) -> None:
        """Write text, now.

        Raises:
            ReaderLeftError: nobody reads it any more.
            OutputError: it cannot be written, for example to a full disk.
        """
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError as error:
            self._abandon()
            raise ReaderLeftError from error
        except (OSError, ValueError) as error:
            self._abandon()
            files = f" What was made is in {', '.join(map(str, self._kept))}." if self._kept else ""
            reason = getattr(error, "strerror", None) or error
            raise OutputError(
                f"Expected to write the result to standard output, got {reason}.{files}"
            ) from error

    def _abandon(self) -> None:
        """Forget what waits to be written: the interpreter would try again, and complain, as it ends."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


def _occupy_closed_descriptors() -> None:
    """Open the null device in place of closed standard streams.

    Else the next file that is opened would get such a number, and whatever libraries print would go into it.
    """
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return


def _show_anything(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    # Python keeps bytes of file names that are no text as these half surrogates.
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return character.encode("ascii", "backslashreplace").decode("ascii"), error.start + 1
