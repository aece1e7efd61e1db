"""Why work was not done, beside the refusals of `guard.refusals`."""

import logging

from g2vlm.errors import G2VLMError

_log = logging.getLogger(__name__)


class StoppingError(G2VLMError):
    """The service is going down and takes, or finishes, no more work."""


class FailedWorkError(Exception):
    """A defect: the work ended with an error that no user can correct; the log has it."""


def told(error: Exception) -> Exception:
    """The error as those who wait are told it; a defect goes to the log."""
    if isinstance(error, G2VLMError):
        return error
    _log.error("The engine's work failed.", exc_info=error)
    return FailedWorkError(f"The work ended with {type(error).__name__}.")
