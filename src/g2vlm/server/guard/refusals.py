"""Errors of the service: each knows its HTTP status and a code that programs can tell it by.

Any other `InputError` is answered with 400. None of these is a fault of the service, so none is a 5xx.
"""

from typing import ClassVar

from g2vlm.errors import InputError


class RefusedError(InputError):
    """A request that is not served; the message says why and what to do."""

    status: ClassVar[int] = 400
    """HTTP status of the answer."""

    code: ClassVar[str] = "invalid_request"
    """Short name of the reason, which stays the same between releases."""


class NotAuthenticatedError(RefusedError):
    """No API key, or one that does not exist or was revoked."""

    status = 401
    code = "invalid_api_key"


class ForbiddenError(RefusedError):
    """A request that is not allowed whoever asks, such as one that a foreign web page made."""

    status = 403
    code = "forbidden"


class NotFoundError(RefusedError):
    """Nothing of this name, or nothing that belongs to this tenant: the answer is the same."""

    status = 404
    code = "not_found"


class ConflictError(RefusedError):
    """The thing exists, but is in a state in which the request makes no sense."""

    status = 409
    code = "conflict"


class TooLargeError(RefusedError):
    """More bytes, pixels, frames or seconds than the limits allow."""

    status = 413
    code = "too_large"


class QuotaError(RefusedError):
    """The tenant's share of the disk or number of scenes is used up, and nothing may be evicted."""

    status = 413
    code = "quota_exceeded"


class UnsupportedFormatError(RefusedError):
    """Content that is no picture and no video, or not what it was declared to be."""

    status = 415
    code = "unsupported_format"


class UndecodableError(RefusedError):
    """A picture or video that cannot be decoded within the limits of time and memory."""

    status = 422
    code = "undecodable"


class CancelledError(RefusedError):
    """The client left, or the deadline passed, before the work was done."""

    status = 408
    code = "cancelled"


class BusyError(RefusedError):
    """Too much is waiting already: come back after `retry_after_s`."""

    status = 429
    code = "busy"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """For the header Retry-After, in seconds."""
