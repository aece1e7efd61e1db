"""From the hub to a folder and back: listing, download, upload, and errors in plain words.

Files land in the hub library's own cache layout (blobs named after their content, links in snapshots), so
that other tools share them; or in a folder of the caller's choice.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from g2vlm.checkpoints import places, transfer, xet
from g2vlm.errors import CheckpointError, DownloadError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from rich.progress import Progress

_WANTED = re.compile(r"model(-\d+-of-\d+)?\.safetensors|[A-Za-z0-9_.-]+\.json|merges\.txt|LICENSE(\.txt)?")
_SAFE_ETAG = re.compile(r"[A-Za-z0-9_-]{1,128}")
_REACH_TIMEOUT_S = 10.0
_Describe = Callable[[], transfer.RemoteFile]


def download(repo_id: str = places.DEFAULT_REPO, revision: str = "main", folder: Path | None = None) -> Path:
    """Fetch a checkpoint, or complete and check one fetched before.

    Every file is compared with the size and content hash that the hub announces, also those already there.
    An interrupted download continues where it stopped, in this process or a later one.

    Args:
        repo_id: Hub id, `owner/name`.
        revision: Branch, tag or commit.
        folder: Where to put the files; None for the hub's cache.

    Returns:
        Folder that holds the checkpoint.

    Raises:
        DownloadError: No network, no access, no space, or a file that did not arrive intact.
        CheckpointError: The repository holds no complete checkpoint.
    """
    with explained(repo_id, revision):
        commit, sizes = listing(repo_id, revision)
        storage = places.storage_folder(repo_id)
        result = folder if folder is not None else storage / "snapshots" / commit
        _require_space(result, storage / "blobs" if folder is None else result, sizes)
        with _progress() as progress:
            for name, size in sizes.items():
                on_bytes = partial(progress.advance, progress.add_task(name, total=size))
                describe = partial(_describe, repo_id, commit, name, size)
                if folder is None:
                    _into_cache(storage, result / name, describe, on_bytes)
                else:
                    _into_folder(result / name, describe, on_bytes)
    if missing := places.missing_parts(result):
        raise CheckpointError(
            f"Expected a G2VLM checkpoint at {repo_id}, but it has no {', '.join(missing)}: choose another "
            f"repository, for example {places.DEFAULT_REPO}"
        )
    if folder is None:
        _write_reference(storage, revision, commit)
    return result


def push_folder(folder: Path, repo_id: str, *, private: bool = False, message: str = "Upload G2VLM") -> str:
    """Upload a checkpoint folder to the hub, creating the repository if needed.

    Returns:
        Address of the commit.

    Raises:
        CheckpointError: The folder is not a complete checkpoint.
        DownloadError: The hub cannot be reached or refuses.
    """
    if missing := places.missing_parts(folder):
        raise CheckpointError(
            f"Expected a complete checkpoint in {folder}, but it has no {', '.join(missing)}"
        )
    with explained(repo_id, "main"):
        api = _api()
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message).commit_url)


def _api() -> "HfApi":
    from huggingface_hub import HfApi

    return HfApi(endpoint=places.hub_endpoint(), library_name="g2vlm", library_version=_version())


def _version() -> str:
    return metadata.version("g2vlm")


def listing(repo_id: str, revision: str) -> tuple[str, dict[str, int | None]]:
    """Commit of a revision and the sizes of its files that a checkpoint needs."""
    if places.is_offline():
        raise DownloadError(
            f"Expected {repo_id} in the cache {places.cache_folder()}, but it is not (all) there and "
            "HF_HUB_OFFLINE forbids the network: unset it, or name a checkpoint folder"
        )
    info = _api().model_info(repo_id, revision=revision, files_metadata=True, timeout=_REACH_TIMEOUT_S)
    files = {file.rfilename: file.size for file in info.siblings or ()}
    wanted = {name: size for name, size in files.items() if _WANTED.fullmatch(name)}
    if info.sha is None or not re.fullmatch(r"[0-9a-f]{7,64}", info.sha):
        raise DownloadError(
            f"Expected a commit for {repo_id}@{revision} from {places.hub_endpoint()}, got {info.sha!r}"
        )
    return info.sha, wanted


def _describe(repo_id: str, commit: str, name: str, listed_size: int | None) -> transfer.RemoteFile:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    endpoint = places.hub_endpoint()
    url = hf_hub_url(repo_id, name, revision=commit, endpoint=endpoint)
    headers = build_hf_headers(library_name="g2vlm", library_version=_version())
    found = get_hf_file_metadata(url, timeout=_REACH_TIMEOUT_S, headers=headers, endpoint=endpoint)
    own = dict(headers)
    if urlsplit(found.location)[:2] != urlsplit(url)[:2]:
        own.pop("authorization", None)  # storage servers behind signed addresses get no token
    etag = found.etag or commit + name
    if not _SAFE_ETAG.fullmatch(etag):  # it becomes a file name
        etag = f"other-{hashlib.sha256(etag.encode()).hexdigest()}"
    size = listed_size if found.size is None else found.size
    stored = found.xet_file_data if xet.is_wanted() else None
    return transfer.RemoteFile(name, found.location, own, size, headers, etag, stored)


def _into_cache(storage: Path, pointer: Path, describe: _Describe, on_bytes: Callable[[int], None]) -> None:
    """Blob named after its content, and a link to it in the snapshot, as the hub library lays them out."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    remote = describe()
    blob = storage / "blobs" / remote.etag
    lock = storage.parent / ".locks" / storage.name / f"{remote.etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        held = pointer if pointer.exists() else blob
        if not _is_intact(held, remote, on_bytes):
            pointer.unlink(missing_ok=True)
            blob.unlink(missing_ok=True)
            unfinished = blob.with_name(f"{blob.name}.incomplete")
            transfer.fetch(remote, blob, unfinished, renew=describe, on_bytes=on_bytes)
        if not pointer.exists():
            pointer.parent.mkdir(parents=True, exist_ok=True)
            _link(blob, pointer)


def _into_folder(target: Path, describe: _Describe, on_bytes: Callable[[int], None]) -> None:
    remote = describe()
    if not _is_intact(target, remote, on_bytes):
        unfinished = target.with_name(f".{target.name}.{remote.etag[:16]}.incomplete")
        transfer.fetch(remote, target, unfinished, renew=describe, on_bytes=on_bytes)


def _is_intact(path: Path, remote: transfer.RemoteFile, on_bytes: Callable[[int], None]) -> bool:
    if not path.exists():
        return False
    if transfer.matches(path, remote):
        on_bytes(path.stat().st_size)
        return True
    return False


def _link(blob: Path, pointer: Path) -> None:
    pointer.unlink(missing_ok=True)
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:  # file systems without symbolic links: the snapshot holds the file itself
        os.replace(blob, pointer)


def _write_reference(storage: Path, revision: str, commit: str) -> None:
    if revision == commit:
        return
    reference = storage / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    written = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")
    written.write_text(commit)
    os.replace(written, reference)


def _require_space(result: Path, partials: Path, sizes: dict[str, int | None]) -> None:
    needed = sum(size or 0 for name, size in sizes.items() if not (result / name).exists())
    needed -= sum(path.stat().st_size for path in partials.glob("*.incomplete"))
    place = next(parent for parent in (result, *result.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise DownloadError(
            f"Expected {needed / 1e9:.1f} GB of free space at {place}, got {free / 1e9:.1f} GB: free some, "
            "or choose another place with --folder or HF_HUB_CACHE"
        )


def _progress() -> "Progress":
    """Bars on stderr; stdout stays for results."""
    from rich import progress as bars
    from rich.console import Console

    hidden = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").upper() in ("1", "ON", "YES", "TRUE")
    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=hidden,
    )


@contextmanager
def explained(repo_id: str, revision: str) -> Iterator[None]:
    """Turn what the hub library raises into one line that says what to do."""
    from huggingface_hub import errors

    endpoint = places.hub_endpoint()
    elsewhere = "set HF_ENDPOINT to a mirror, or copy a checkpoint folder here and name it with --ckpt"
    try:
        yield
    except (DownloadError, CheckpointError):
        raise
    except errors.HFValidationError as error:
        raise DownloadError(f"Expected a hub id like {places.DEFAULT_REPO}, got {repo_id!r}") from error
    except errors.OfflineModeIsEnabled as error:
        raise DownloadError(
            f"Expected to reach {endpoint}, but offline mode is on: unset HF_HUB_OFFLINE"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DownloadError(
            f"Expected revision {revision!r} of {repo_id}, but {endpoint} has none"
        ) from error
    except errors.HfHubHTTPError as error:
        raise DownloadError(_refusal(repo_id, endpoint, error.response.status_code)) from error
    except transfer.transport_error() as error:
        raise DownloadError(
            f"Expected to reach {endpoint} for {repo_id}, got {_first_line(error)}: check the network or "
            f"the proxy (HTTPS_PROXY), {elsewhere}"
        ) from error
    except OSError as error:
        raise DownloadError(
            f"Expected to store {repo_id}, got {_first_line(error)}: check space and rights"
        ) from error


def _refusal(repo_id: str, endpoint: str, status: int) -> str:
    if status in (401, 403):
        return (
            f"Expected access to {repo_id}, but {endpoint} refuses (HTTP {status}): check the name, and "
            "for a private or gated repository set HF_TOKEN to a token that may read it"
        )
    if status == 404:
        return f"Expected {repo_id} on {endpoint}, but there is no such repository or file: check the name"
    return f"Expected {repo_id} from {endpoint}, got HTTP {status}: try later, or set HF_ENDPOINT to a mirror"


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
