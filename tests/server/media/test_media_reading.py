"""Finding what the parts of requests name."""

import pytest
from small_service import PlainDecoder, pictures, png

from g2vlm.server.guard.fetching import Fetched
from g2vlm.server.guard.limits import Limits
from g2vlm.server.guard.refusals import ForbiddenError, TooLargeError, UnsupportedFormatError
from g2vlm.server.media import reading
from g2vlm.server.media.parts import ImagePart
from g2vlm.server.media.reading import MediaReader
from g2vlm.server.store.store import Store

URL = "https://example.org/a.png"


def parts(count: int) -> list[ImagePart]:
    return [ImagePart.model_validate({"type": "image_url", "image_url": {"url": URL}})] * count


def test_slow_addresses_of_one_request_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, fetched = [0.0], []
    monkeypatch.setattr(reading.time, "monotonic", lambda: clock[0])

    def fetch(url: str) -> Fetched:
        fetched.append(url)
        clock[0] += 9.0
        return Fetched(png(pictures(1)[0]), "image/png")

    with Store(None) as store:
        reader = MediaReader(PlainDecoder(), store, Limits(url_seconds=10.0), fetch)
        with pytest.raises(TooLargeError, match="together"):
            reader.contents("ada", parts(8))
        assert len(fetched) == 2


def test_addresses_are_refused_unless_they_are_allowed() -> None:
    with Store(None) as store, pytest.raises(ForbiddenError):
        MediaReader(PlainDecoder(), store, Limits(), None).contents("ada", parts(1))


@pytest.mark.parametrize("media_type", ["text/html", "video/mp4"])
def test_what_an_address_gives_must_be_what_it_is_declared(media_type: str) -> None:
    content = png(pictures(1)[0])
    with Store(None) as store:
        reader = MediaReader(PlainDecoder(), store, Limits(), lambda _: Fetched(content, media_type))
        with pytest.raises(UnsupportedFormatError):
            reader.contents("ada", parts(1))
