"""What the store remembers about uploads and scenes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class JobState(Enum):
    """Where the computation of a scene stands."""

    QUEUED = "queued"
    """Waits to be computed."""

    RUNNING = "running"
    """Is being computed by this service."""

    DONE = "done"
    """All files are there."""

    FAILED = "failed"
    """Cannot be computed; `error` says why."""

    HANDED_BACK = "handed_back"
    """A service that shut down gave it back unfinished; the next one computes it."""


WAITING = (JobState.QUEUED, JobState.HANDED_BACK)
"""States from which a scene is begun."""

UNFINISHED = (*WAITING, JobState.RUNNING)
"""States in which a scene still needs its uploads."""


@dataclass(frozen=True)
class UploadRecord:
    """A photo or video that a tenant sent."""

    tenant: str
    """Whose it is."""

    id: str
    """Name in requests."""

    media_type: str
    """As its content tells, such as `image/jpeg`."""

    num_bytes: int
    """Size on the disk."""

    digest: str
    """SHA-256 of the content, hexadecimal."""

    created_s: float
    """When it arrived, in seconds since 1970."""

    expires_s: float
    """When it is removed unless it is used before, in seconds since 1970."""


@dataclass(frozen=True)
class SceneRecord:
    """A scene of a tenant, finished or not."""

    tenant: str
    """Whose it is."""

    id: str
    """Name in requests."""

    state: JobState
    """Where its computation stands."""

    request: Mapping[str, Any]
    """What was asked for, as JSON can say it."""

    created_s: float
    """When it was asked for, in seconds since 1970."""

    updated_s: float
    """When `state` last changed, in seconds since 1970."""

    expires_s: float
    """When it is removed unless it is used before, in seconds since 1970."""

    attempts: int = 0
    """How often its computation was begun."""

    num_bytes: int = 0
    """Size of its files on the disk."""

    error: str = ""
    """Why it failed, for the tenant; empty otherwise."""

    about: Mapping[str, Any] = field(default_factory=dict)
    """What the computation says about its result, as JSON can say it; empty before."""

    uploads: tuple[str, ...] = ()
    """Ids of the uploads it is made of, in order; they are kept until it is finished."""


@dataclass(frozen=True)
class Usage:
    """How much of its share a tenant uses."""

    num_bytes: int
    """Uploads and scenes on the disk, and room that is set aside for what is arriving."""

    num_scenes: int
    """Scenes in any state."""

    num_uploads: int
    """Uploads that have arrived."""


@dataclass(frozen=True)
class Recovery:
    """What the start of a store found and put right."""

    num_half_files: int = 0
    """Temporary files and half-removed things that were deleted."""

    num_requeued: int = 0
    """Interrupted scenes that wait again."""

    num_failed: int = 0
    """Interrupted scenes that were begun too often."""
