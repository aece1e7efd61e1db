"""Which checkpoint folder a name means.

Names: a folder on this disk, a bundled name (`g2vlm-tiny`), or a hub id (`owner/name`, optionally
`owner/name@revision`), looked up in the cache and downloaded if it is not there.
"""

import enum
import re
from dataclasses import dataclass
from pathlib import Path

from g2vlm.checkpoints.download import download, explained, listing, push_folder
from g2vlm.checkpoints.files import WEIGHTS
from g2vlm.checkpoints.places import (
    BUNDLED_FOLDER,
    BUNDLED_NAME,
    DEFAULT_REPO,
    WEIGHTS_INDEX,
    cached_folder,
    has_bundled,
    is_cached,
)
from g2vlm.errors import CheckpointError, DownloadError

__all__ = [
    "BUNDLED_NAME",
    "DEFAULT_REPO",
    "CheckpointChoice",
    "Origin",
    "choose_checkpoint",
    "download",
    "has_bundled",
    "is_cached",
    "push_folder",
    "resolve_checkpoint",
]

_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)(@(?P<revision>[\w./-]+))?")


class Origin(enum.Enum):
    """Where a checkpoint was found."""

    FOLDER = "a local folder"
    BUNDLED = "bundled with the package"
    CACHE = "the hub's cache"
    DOWNLOADED = "downloaded from the hub"


@dataclass(frozen=True)
class CheckpointChoice:
    """A checkpoint folder and how it came to be chosen."""

    folder: Path
    """Folder on disk that holds the weights."""
    origin: Origin
    """Where it was found."""
    name: str
    """What was asked for, or what the default turned out to be."""
    reason: str = ""
    """Why the default is this one; empty where the caller named it."""

    def __str__(self) -> str:
        """One line for the user."""
        if self.origin is Origin.FOLDER:
            return f"{self.folder} ({self.origin.value})"
        because = f"; {self.reason}" if self.reason else ""
        return f"{self.name} ({self.origin.value}: {self.folder}{because})"


def resolve_checkpoint(name: str | Path | None = None) -> Path:
    """Folder on disk of a checkpoint, downloaded first if need be; see `choose_checkpoint`."""
    return choose_checkpoint(name).folder


def choose_checkpoint(name: str | Path | None = None, *, may_download: bool = True) -> CheckpointChoice:
    """Find the checkpoint that `name` means.

    Args:
        name: A folder (or its `model.safetensors`), a bundled name, or a hub id. None takes the released
            checkpoint if it is in the cache or the hub can be reached, else the bundled one.
        may_download: Whether a hub checkpoint that is not in the cache may be fetched; if not, the hub is not
            asked at all.

    Raises:
        CheckpointError: Nothing of that name, a folder without weights, or no checkpoint at all.
        DownloadError: A hub id that is not in the cache and cannot be downloaded.
    """
    if name is None:
        return _default_checkpoint(may_download)
    path = Path(name).expanduser()
    if path.exists():
        return _local_checkpoint(path, str(name))
    if str(name) == BUNDLED_NAME:
        return _bundled_checkpoint()
    hub_id = _HUB_ID.fullmatch(str(name))
    if isinstance(name, Path) or hub_id is None:
        raise CheckpointError(
            f"Expected a checkpoint folder, the bundled name {BUNDLED_NAME} or a hub id like "
            f"{DEFAULT_REPO}, got {str(name)!r}, which is none of them: check the spelling, or fetch one "
            "with  g2vlm download"
        )
    repo_id, revision = hub_id["repo"], hub_id["revision"] or "main"
    cached = cached_folder(repo_id, revision)
    if cached is not None:
        return CheckpointChoice(cached, Origin.CACHE, str(name))
    if not may_download:
        raise CheckpointError(
            f"Expected {name} on this machine, but it is not: fetch it with  g2vlm download {repo_id}"
        )
    return CheckpointChoice(download(repo_id, revision), Origin.DOWNLOADED, str(name))


def _default_checkpoint(may_download: bool) -> CheckpointChoice:
    cached = cached_folder(DEFAULT_REPO)
    if cached is not None:
        return CheckpointChoice(cached, Origin.CACHE, DEFAULT_REPO)
    why_not = _why_out_of_reach() if may_download else "fetch it with  g2vlm download , or name a folder"
    if why_not is None:
        return CheckpointChoice(download(DEFAULT_REPO), Origin.DOWNLOADED, DEFAULT_REPO)
    if not has_bundled():
        raise CheckpointError(
            "Expected a checkpoint, but none was named, this installation bundles none, and "
            f"{DEFAULT_REPO} is not in the cache: {why_not}"
        )
    reason = f"{DEFAULT_REPO} is not in the cache, and the hub is not within reach"
    return CheckpointChoice(BUNDLED_FOLDER / BUNDLED_NAME, Origin.BUNDLED, BUNDLED_NAME, reason)


def _why_out_of_reach() -> str | None:
    """Why the hub does not offer the default checkpoint; None where it does."""
    try:
        with explained(DEFAULT_REPO, "main"):
            listing(DEFAULT_REPO, "main")
    except DownloadError as error:
        return str(error)
    return None


def _local_checkpoint(path: Path, name: str) -> CheckpointChoice:
    folder = path.parent if path.name == WEIGHTS else path
    if not folder.is_dir():
        raise CheckpointError(
            f"Expected a checkpoint folder, got the file {path}: name the folder that holds {WEIGHTS} "
            "and its json files"
        )
    if not any((folder / name).is_file() for name in (WEIGHTS, WEIGHTS_INDEX)):
        raise CheckpointError(
            f"Expected {WEIGHTS} in the checkpoint folder {folder}, got a folder without weights: "
            "check the path, or fetch a checkpoint with  g2vlm download"
        )
    return CheckpointChoice(folder, Origin.FOLDER, name)


def _bundled_checkpoint() -> CheckpointChoice:
    if not has_bundled():
        raise CheckpointError(
            f"Expected the bundled checkpoint {BUNDLED_NAME}, but this installation carries none: name a "
            f"folder or a hub id like {DEFAULT_REPO}"
        )
    return CheckpointChoice(BUNDLED_FOLDER / BUNDLED_NAME, Origin.BUNDLED, BUNDLED_NAME)
