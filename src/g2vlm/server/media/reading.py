"""From the parts of a request to views, with no more pixels in memory than the model needs."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from g2vlm.inputs.frame_choice import FrameChoice
from g2vlm.inputs.geometric import Fit
from g2vlm.inputs.photos import PhotoSet
from g2vlm.inputs.reduction import Reduction
from g2vlm.server.guard.data_urls import parse_data_url
from g2vlm.server.guard.limits import Limits
from g2vlm.server.guard.refusals import ForbiddenError, TooLargeError, UnsupportedFormatError
from g2vlm.server.guard.sniffing import MediaKind, sniff
from g2vlm.server.media.parts import FilePart, ImagePart, Looking, VideoPart
from g2vlm.server.ports import Decoder, Fetch
from g2vlm.server.store.store import Store
from g2vlm.server.web.errors import ParameterError

Part = ImagePart | VideoPart | FilePart


@dataclass(frozen=True)
class Content:
    """An encoded photo or video."""

    digest: str
    """SHA-256 of it."""
    data: bytes | Path
    """It, or the file that holds it."""
    upload_id: str | None = None
    """Of the upload that holds it."""

    def encoded(self) -> bytes:
        """All of it."""
        return self.data if isinstance(self.data, bytes) else self.data.read_bytes()


class MediaReader:
    """Finds and decodes what the parts of requests name. Blocks: for threads beside the event loop.

    Args:
        decoder: decodes.
        store: has the uploads.
        limits: of the service.
        fetch: of addresses; none where they are not allowed.
    """

    def __init__(self, decoder: Decoder, store: Store, limits: Limits, fetch: Fetch | None) -> None:
        self._decoder, self._store, self._limits, self._fetch = decoder, store, limits, fetch

    def contents(self, tenant: str, parts: Sequence[Part]) -> tuple[Content, ...]:
        """Find what is encoded in, or named by, the parts of a request.

        Raises:
            RefusedError: something is not there, too large, or no photo and no video.
        """
        most = self._limits.images_per_request
        if len(parts) > most:
            raise TooLargeError(f"Expected at most {most} photos in a request, got {len(parts)}: send fewer.")
        deadline_s = time.monotonic() + self._limits.url_seconds
        return tuple(self._content(tenant, part, deadline_s) for part in parts)

    def uploaded(self, tenant: str, upload_ids: Sequence[str]) -> tuple[Content, ...]:
        """As `contents`, by the ids of uploads."""
        return tuple(self._upload(tenant, upload_id) for upload_id in upload_ids)

    def photos(
        self,
        contents: Sequence[Content],
        looking: Looking,
        keep: Reduction,
        is_cancelled: Callable[[], bool],
    ) -> PhotoSet:
        """Decode what was found.

        Args:
            contents: photos, or one video.
            looking: how they become views.
            keep: sizes that the model needs.
            is_cancelled: asked all the time.

        Raises:
            RefusedError: something cannot be decoded, or there is too much of it.
            InputError: a first photo that is too small or too flat for the model.
        """
        return self._decoder.decode(
            [content.data for content in contents],
            keep=keep,
            frames=FrameChoice(count=looking.frame_count),
            max_views=looking.max_views,
            is_cancelled=is_cancelled,
        )

    def _content(self, tenant: str, part: Part, deadline_s: float) -> Content:
        if isinstance(part, ImagePart):
            return self._at(part.image_url.url, MediaKind.IMAGE, deadline_s)
        if isinstance(part, VideoPart):
            return self._at(part.video_url.url, MediaKind.VIDEO, deadline_s)
        given = part.file
        if given.file_id is not None and given.file_data is None:
            return self._upload(tenant, given.file_id)
        if given.file_data is not None and given.file_id is None:
            return self._at(given.file_data, None, deadline_s)
        raise ParameterError("Expected either file_id or file_data.", "file", "invalid_value")

    def _at(self, url: str, kind: MediaKind | None, deadline_s: float) -> Content:
        declared = None
        if url[:5].lower() == "data:":
            most = self._limits.image_bytes if kind is MediaKind.IMAGE else self._limits.video_bytes
            declared, data = parse_data_url(url, most)
        elif self._fetch is None:
            raise ForbiddenError(
                "Expected a data URL or the id of an upload, since this service fetches no addresses: send "
                "the photo itself."
            )
        elif time.monotonic() > deadline_s:
            # Each may take as long alone; together they would keep a thread from everybody for minutes.
            raise TooLargeError(
                f"Expected addresses that are fetched within {self._limits.url_seconds:g} seconds together, "
                "got slower ones: send the photos themselves."
            )
        else:
            fetched = self._fetch(url)
            declared, data = fetched.media_type, fetched.content
        found = sniff(data, declared).kind
        if kind is not None and found is not kind:
            raise UnsupportedFormatError(f"Expected a part for {found.value}s, got one for {kind.value}s.")
        return Content(hashlib.sha256(data).hexdigest(), data)

    def _upload(self, tenant: str, upload_id: str) -> Content:
        record = self._store.uploads.get(tenant, upload_id)
        with self._store.uploads.reading(tenant, upload_id) as path:
            return Content(record.digest, path, upload_id)


def digest_of(contents: Sequence[Content], looking: Looking) -> str:
    """What the views of a request are known by: equal ones have equal contents and options."""
    found = hashlib.sha256()
    for content in contents:
        found.update(content.digest.encode())
    found.update(f"{looking.max_views} {looking.fit} {looking.frame_count}".encode())
    return found.hexdigest()


def fit_of(looking: Looking) -> Fit:
    """How photos are brought to one shape."""
    return Fit(looking.fit)
