"""Which checkpoint folder a name means.

Names: a folder on this disk, a bundled name (`g2vlm-tiny`), or a hub id (`owner/name`, optionally
`owner/name@revision`), looked up in the cache, and downloaded with the user's leave if it is not there.
"""

import enum
import re
from collections.abc import Callable
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

Leave = bool | Callable[[str, int], bool]
"""Whether a checkpoint may be downloaded; or whom to ask, with its hub id and its bytes."""


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
    """Folder on disk of a checkpoint; see `choose_checkpoint`."""
    return choose_checkpoint(name).folder


def choose_checkpoint(name: str | Path | None = None, *, may_download: Leave = False) -> CheckpointChoice:
    """Find the checkpoint that `name` means.

    Args:
        name: A folder (or its `model.safetensors`), a bundled name, or a hub id. None takes the released
            checkpoint if it is in the cache, or can and may be downloaded, else the bundled one.
        may_download: Leave to fetch a hub checkpoint that is not in the cache; without it, the hub is not
            asked at all.

    Raises:
        CheckpointError: Nothing of that name, a folder without weights, no checkpoint at all, or a hub id
            that is not in the cache and may not be downloaded.
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
    if not _is_allowed(may_download, repo_id, revision):
        raise CheckpointError(f"Expected {name} on this machine, but it is not: {_how_to_get(repo_id)}")
    return CheckpointChoice(download(repo_id, revision), Origin.DOWNLOADED, str(name))


def _is_allowed(may_download: Leave, repo_id: str, revision: str) -> bool:
    """Whether there is leave, asked for if need be, after a look whether the hub is within reach."""
    if not may_download:
        return False
    with explained(repo_id, revision):
        _, sizes = listing(repo_id, revision)
    return may_download is True or may_download(repo_id, sum(size or 0 for size in sizes.values()))


def _how_to_get(repo_id: str) -> str:
    return (
        f"nothing large is fetched without your leave. Fetch it with  g2vlm download {repo_id} , or name a "
        "checkpoint folder; recon, chat and eval also take --download, g2vlm.load takes download=True"
    )


def _default_checkpoint(may_download: Leave) -> CheckpointChoice:
    cached = cached_folder(DEFAULT_REPO)
    if cached is not None:
        return CheckpointChoice(cached, Origin.CACHE, DEFAULT_REPO)
    because = "was not to be downloaded", _how_to_get(DEFAULT_REPO)
    if may_download:
        try:
            allowed = _is_allowed(may_download, DEFAULT_REPO, "main")
        except DownloadError as error:
            because, allowed = ("the hub is not within reach", str(error)), False
        # From here on an error is told: nobody who waited for the released checkpoint wants another instead.
        if allowed:
            return CheckpointChoice(download(DEFAULT_REPO), Origin.DOWNLOADED, DEFAULT_REPO)
    if not has_bundled():
        raise CheckpointError(
            "Expected a checkpoint, but none was named, this installation bundles none, and "
            f"{DEFAULT_REPO} is not in the cache: {because[1]}"
        )
    reason = f"{DEFAULT_REPO} is not in the cache, and {because[0]}"
    return CheckpointChoice(BUNDLED_FOLDER / BUNDLED_NAME, Origin.BUNDLED, BUNDLED_NAME, reason)


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
