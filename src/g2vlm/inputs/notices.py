"""What users should know about their photos, without being stopped.

Everything is said once, as a Python warning of a class below: the command line prints it as one line, scripts
filter or record it with `warnings`, and what concerns the photos of one call is also kept in
`PhotoSet.notices`, where a service that answers several callers at once finds it.
"""

import warnings


class InputWarning(UserWarning):
    """Something about photos or videos that may make results worse."""


class SkippedInputWarning(InputWarning):
    """Some inputs could not be used and were left out."""


class UnusualPhotoWarning(InputWarning):
    """Photos that no ordinary camera took, or of a size or shape that makes little sense."""


class Notices:
    """Collects what was said about the photos of one call."""

    def __init__(self) -> None:
        self._said: list[str] = []

    @property
    def said(self) -> tuple[str, ...]:
        """Everything said so far."""
        return tuple(self._said)

    def say(self, category: type[InputWarning], text: str) -> None:
        """Warn, and keep the text.

        Args:
            category: Class of the warning.
            text: One or two sentences.
        """
        self._said.append(text)
        warnings.warn(text, category, stacklevel=4)


def listed(names: list[str], limit: int = 4) -> str:
    """Names in one phrase: `a.jpg, b.jpg and 7 more`."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
