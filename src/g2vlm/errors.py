"""Errors that a user can act on.

Everything raised for a user's mistake derives from `G2VLMError`, and its message says what was expected,
what came and what to do next. The command line prints the message alone and exits with status 2; the HTTP
service answers 4xx. Any other exception is a defect of this package.
"""


class G2VLMError(Exception):
    """Base of all errors that describe a mistake the user can correct."""


class InputError(G2VLMError, ValueError):
    """Photos, videos, questions or parameters that cannot be used."""


class MemoryLimitError(G2VLMError, MemoryError):
    """Work that this machine has too little memory for."""


class CheckpointError(G2VLMError, ValueError):
    """A checkpoint that is missing, incomplete or does not fit the model."""


class DownloadError(G2VLMError, OSError):
    """A file that could not be fetched from the hub, or did not arrive intact."""


class DeviceError(G2VLMError, RuntimeError):
    """A device or precision that this machine does not offer."""


class OutputError(G2VLMError, OSError):
    """A result that cannot be written where it was asked for."""


class MissingExtraError(G2VLMError, ImportError):
    """An optional dependency that the request needs but that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: run  pip install 'g2vlm[{extra}]'")


class CheckpointWarning(UserWarning):
    """Another checkpoint than the released one was taken, because that is not on this machine."""
