"""Decoding in processes that can die: results as offline, bombs refused, the dead replaced."""

import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from g2vlm.inputs.frame_choice import FrameChoice
from g2vlm.inputs.photos import PhotoSet, load_photos
from g2vlm.inputs.reduction import Reduction
from g2vlm.server.guard.decoding import DecodingPool
from g2vlm.server.guard.limits import MIB, Limits
from g2vlm.server.guard.refusals import (
    CancelledError,
    NotFoundError,
    RefusedError,
    TooLargeError,
    UndecodableError,
    UnsupportedFormatError,
)

KEEP = Reduction()
LIMITS = Limits(decoding_workers=1, decoding_seconds=20.0, image_pixels=4_000_000, decoding_bytes=1024 * MIB)


def encoded(size: tuple[int, int] = (64, 48), kind: str = "PNG", mode: str = "RGB", seed: int = 0) -> bytes:
    channels = len(mode)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodingPool]:
    with DecodingPool(LIMITS) as pool:
        yield pool


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "walk.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (96, 64))
    for number in range(30):
        writer.write(np.full((64, 96, 3), number * 8, np.uint8))
    writer.release()
    return path


def same(first: PhotoSet, second: PhotoSet) -> None:
    assert len(first.photos) == len(second.photos)
    for one, other in zip(first.photos, second.photos, strict=True):
        assert one.size == other.size
        assert one.time_s == other.time_s
        for rendition in KEEP.renditions(one.size, first.photos[0].size):
            np.testing.assert_array_equal(one.resized(*rendition), other.resized(*rendition))
            np.testing.assert_array_equal(one.visible(rendition[0]), other.visible(rendition[0]))


@pytest.mark.filterwarnings("ignore:.*tiny")
def test_photos_are_what_they_are_offline(pool: DecodingPool, tmp_path: Path) -> None:
    contents = [encoded(seed=1), encoded((50, 80), "JPEG", seed=2), encoded(mode="RGBA", seed=3)]
    for place, content in enumerate(contents):
        (tmp_path / f"image_{place}").write_bytes(content)
    offline = load_photos([tmp_path / f"image_{place}" for place in range(3)], keep=KEEP)
    served = pool.decode(contents, keep=KEEP)
    same(served, offline)
    assert [photo.name for photo in served.photos] == [photo.name for photo in offline.photos]
    same(pool.decode([tmp_path / f"image_{place}" for place in range(3)], keep=KEEP), offline)


def test_all_pixels_are_kept_where_nothing_else_is_asked_for(pool: DecodingPool) -> None:
    content = encoded(mode="RGBA")
    (photo,) = pool.decode([content], keep=None).photos
    (expected,) = load_photos(Image.open(io.BytesIO(content))).photos
    np.testing.assert_array_equal(photo.image, expected.image)


@pytest.mark.filterwarnings("ignore:.*tiny")
def test_videos_are_what_they_are_offline(pool: DecodingPool, video: Path) -> None:
    frames = FrameChoice(count=5)
    offline = load_photos(video, frames=frames, keep=KEEP)
    for source in (video, video.read_bytes()):
        served = pool.decode([source], keep=KEEP, frames=frames)
        same(served, offline)
        assert served.frame_indices == offline.frame_indices


def test_messages_do_not_tell_where_files_lie(pool: DecodingPool, video: Path) -> None:
    damaged = video.read_bytes()[:200]
    for content in (damaged, encoded()[:200]):
        with pytest.raises(UndecodableError) as caught:
            pool.decode([content], keep=KEEP)
        assert "/" not in str(caught.value).replace("and/or", "")


def test_an_upload_that_has_gone_meanwhile_is_told(pool: DecodingPool, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="meanwhile"):
        pool.decode([tmp_path / "gone"], keep=KEEP)


def test_one_bad_photo_refuses_the_request(pool: DecodingPool) -> None:
    with pytest.raises(UndecodableError, match="image_1"):
        pool.decode([encoded(), encoded()[:300], encoded()], keep=KEEP)


def png_that_says(width: int, height: int, rows: int = 1) -> bytes:
    """A small file that promises many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(3000, 2000), (50_000, 50_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)])
def test_decompression_bombs_are_refused_without_decoding(pool: DecodingPool, size: tuple[int, int]) -> None:
    before = pool.num_replaced
    with pytest.raises((TooLargeError, UndecodableError)):
        pool.decode([png_that_says(*size)], keep=KEEP)
    assert pool.num_replaced == before


def test_a_bomb_of_many_small_frames_ends_at_the_limit_of_memory_or_views(pool: DecodingPool) -> None:
    frames = [Image.new("P", (1500, 1500), color) for color in range(12)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    served = pool.decode([file.getvalue()], keep=KEEP, frames=FrameChoice(count=4))
    assert len(served.photos) == 4


def test_memory_beyond_the_limit_is_refused_not_fatal() -> None:
    limits = Limits(decoding_workers=1, decoding_bytes=320 * MIB, image_pixels=100_000_000)
    file = io.BytesIO()
    Image.new("L", (9000, 9000)).save(file, "PNG")
    with DecodingPool(limits) as pool:
        with pytest.raises((TooLargeError, UndecodableError)):
            pool.decode([file.getvalue()], keep=KEEP)
        assert len(pool.decode([encoded()], keep=KEEP).photos) == 1


def test_a_process_that_dies_is_replaced_and_told(video: Path) -> None:
    with DecodingPool(LIMITS) as pool:
        pool.decode([encoded()], keep=KEEP)
        caught: list[BaseException] = []

        def kill() -> None:
            while not pool._busy:
                time.sleep(0.001)
            for worker in tuple(pool._busy):
                os.kill(worker.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            pool.decode([video], keep=None, frames=FrameChoice(count=30))
        except UndecodableError as error:
            caught.append(error)
        killer.join()
        assert len(pool.decode([encoded()], keep=KEEP).photos) == 1
        assert pool.num_replaced == len(caught)


def test_what_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with DecodingPool(Limits(decoding_workers=1, decoding_seconds=0.2)) as pool:
        pool.decode([encoded()], keep=KEEP)
        worker = pool._slots.get()
        assert worker is not None
        os.kill(worker.pid, signal.SIGSTOP)
        pool._slots.put(worker)
        with pytest.raises(UndecodableError, match="seconds"):
            pool.decode([encoded()], keep=KEEP)
        with pytest.raises(ProcessLookupError):
            os.kill(worker.pid, 0)
        assert len(pool.decode([encoded()], keep=KEEP).photos) == 1


def test_cancelling_ends_the_process_at_once(pool: DecodingPool) -> None:
    pool.decode([encoded()], keep=KEEP)
    worker = pool._slots.get()
    assert worker is not None
    os.kill(worker.pid, signal.SIGSTOP)
    pool._slots.put(worker)
    started_s = time.monotonic()
    with pytest.raises(CancelledError):
        pool.decode([encoded()], keep=KEEP, is_cancelled=lambda: time.monotonic() > started_s + 0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
    assert len(pool.decode([encoded()], keep=KEEP).photos) == 1


def test_waiting_for_a_process_can_be_cancelled(pool: DecodingPool) -> None:
    slot = pool._slots.get()
    with pytest.raises(CancelledError):
        pool.decode([encoded()], keep=KEEP, is_cancelled=lambda: True)
    pool._slots.put(slot)


def test_limits_of_number_and_size_hold(pool: DecodingPool) -> None:
    with pytest.raises(TooLargeError, match="photos"):
        pool.decode([encoded()] * (LIMITS.images_per_request + 1), keep=KEEP)
    with pytest.raises(TooLargeError, match="bytes"):
        pool.decode([b"\x89PNG\r\n\x1a\n" + bytes(LIMITS.image_bytes)], keep=KEEP)
    with pytest.raises(RefusedError, match="none"):
        pool.decode([], keep=KEEP)


def test_long_videos_are_refused_by_their_header(video: Path) -> None:
    limits = Limits(decoding_workers=1, video_seconds=1.0)
    with DecodingPool(limits) as pool, pytest.raises(TooLargeError, match="seconds"):
        pool.decode([video], keep=KEEP)


def test_photos_and_videos_do_not_mix(pool: DecodingPool, video: Path) -> None:
    with pytest.raises(RefusedError, match="alone"):
        pool.decode([encoded(), video], keep=KEEP)


@pytest.mark.parametrize("content", [b"", b"<svg/>", b"PK\3\4", b"#EXTM3U\nfile:///etc/passwd", b"%!PS"])
def test_what_is_no_photo_never_reaches_a_decoder(pool: DecodingPool, content: bytes) -> None:
    with pytest.raises(UnsupportedFormatError):
        pool.decode([content], keep=KEEP)


def test_the_process_imports_no_torch_and_keeps_to_a_few_decoders(tmp_path: Path) -> None:
    """Also, should a playlist come past the sniffing, no file of this machine is opened."""
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nvideo.ts\n#EXT-X-ENDLIST\n")
    code = (
        "import sys, g2vlm.server.guard.decoding_child as child\n"
        "child._confine(child.ChildLimits(1 << 30, 1.0, 1000, 1.0, 1 << 20))\n"
        "from PIL import Image; import cv2\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'EPS' not in Image.OPEN and 'PNG' in Image.OPEN and 'EPS' not in Image.ID\n"
        f"assert not cv2.VideoCapture({str(playlist)!r}, cv2.CAP_FFMPEG).isOpened()\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_secrets_of_the_environment_do_not_reach_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    with DecodingPool(LIMITS) as pool:
        pool.decode([encoded()], keep=KEEP)
        worker = pool._slots.get()
        assert worker is not None
        environment = Path(f"/proc/{worker.pid}/environ").read_bytes()
        pool._slots.put(worker)
    assert b"HF_TOKEN" not in environment
    assert b"MALLOC_ARENA_MAX" in environment


def test_files_of_the_current_folder_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy.py", "json.py", "g2vlm.py"):
        (tmp_path / name).write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    with DecodingPool(LIMITS) as pool:
        assert len(pool.decode([encoded()], keep=KEEP).photos) == 1


def test_nothing_is_left_when_the_pool_closes() -> None:
    pool = DecodingPool(LIMITS)
    pool.decode([encoded()], keep=KEEP)
    folder, worker = pool._folder, pool._slots.get()
    assert worker is not None
    assert list(folder.iterdir()) == []
    pool._slots.put(worker)
    pool.close()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
    with pytest.raises(CancelledError):
        pool.decode([encoded()], keep=KEEP)
