"""Formats are told by content; what is two things at once, or something else, is refused."""

import contextlib
import io
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from g2vlm.server.guard.data_urls import parse_data_url
from g2vlm.server.guard.refusals import RefusedError, TooLargeError, UnsupportedFormatError
from g2vlm.server.guard.sniffing import IMAGE_TYPES, VIDEO_TYPES, MediaKind, sniff


def photo(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as entries:
        entries.writestr("META-INF/MANIFEST.MF", "Main-Class: Evil")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_photos_are_told_by_content(kind: str, tmp_path: Path) -> None:
    content = photo(kind)
    assert sniff(content).media_type == f"image/{kind.lower()}"
    (tmp_path / "misnamed.mp4").write_bytes(content)
    assert sniff(tmp_path / "misnamed.mp4").kind is MediaKind.IMAGE


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\0\0\0\x20ftypisom", "video/mp4"),
        (b"\0\0\0\x14ftypqt  ", "video/quicktime"),
        (b"RIFF\0\0\0\0AVI LIST", "video/x-msvideo"),
        (b"\x1aE\xdf\xa3\x01", "video/webm"),
    ],
)
def test_videos_are_told_by_content(head: bytes, media_type: str) -> None:
    assert sniff(head + bytes(100)).media_type == media_type


def test_heic_is_a_photo() -> None:
    assert sniff(b"\0\0\0\x18ftypheic" + bytes(100)).media_type == "image/heic"


REFUSED = {
    "nothing": b"",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "svg after a declaration": b'<?xml version="1.0"?>\n<!-- a --><svg/>',
    "html": b"<!DOCTYPE html><script>alert(1)</script>",
    "html after space": b"\n\n  <HTML>",
    "php": b"<?php system($_GET[0]);",
    "xml": b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
    "pickle": pickle.dumps({"a": 1}),
    "old pickle": b"cos\nsystem\n(S'id'\ntR.",
    "zip": archive(),
    "npz": b"PK\3\4" + bytes(100),
    "npy": b"\x93NUMPY\1\0" + bytes(100),
    "gzip": b"\x1f\x8b\x08" + bytes(100),
    "pdf": b"%PDF-1.7\n",
    "postscript": b"%!PS-Adobe\n",
    "elf": b"\x7fELF" + bytes(100),
    "exe": b"MZ" + bytes(100),
    "shell": b"#!/bin/sh\nid\n",
    "hls": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
    "mp3": b"ID3\4" + bytes(100),
    "m4a": b"\0\0\0\x20ftypM4A " + bytes(100),
    "wav": b"RIFF\0\0\0\0WAVEfmt " + bytes(100),
    "raw photo": b"\0\0\0\x18ftypcrx " + bytes(100),
    "json": b'{"a": 1}',
    "safetensors": (8).to_bytes(8, "little") + b"{}      ",
    "text": b"hello",
    "zeros": bytes(1000),
    "icon": b"\0\0\1\0\1\0",
    "mvg": b"push graphic-context\nfill 'url(https://example.org/)'",
    "psd": b"8BPS\0\1",
}


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedFormatError):
        sniff(REFUSED[name])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize(
    "second",
    [
        *(archive(), b"<script >alert(1)</script>", b"<html >", b"<!DOCTYPE html>", b"%PDF-1.4\n"),
        *(b"<svg xmlns='http://www.w3.org/2000/svg'>", b"<?php system('id');"),
    ],
)
def test_two_things_at_once_are_refused(kind: str, second: bytes) -> None:
    with pytest.raises(UnsupportedFormatError, match="same time"):
        sniff(photo(kind) + bytes(100_000) + second)


def test_a_page_inside_the_comment_of_a_photo_is_refused() -> None:
    content = photo("JPEG")
    comment = b"<html><script>alert(1)</script>"
    marked = content[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + content[2:]
    with pytest.raises(UnsupportedFormatError, match="same time"):
        sniff(marked)


def test_random_pixels_are_not_taken_for_something_else() -> None:
    """Marks of a few bytes occur by chance in compressed pixels: 64 MB of them here."""
    generator = random.Random(0)
    for _ in range(1000):
        assert sniff(b"\xff\xd8\xff\xe0" + generator.randbytes(65_557)).kind is MediaKind.IMAGE


def test_photos_may_be_declared_as_another_format_but_not_as_another_kind() -> None:
    assert sniff(photo("PNG"), "image/jpeg").media_type == "image/png"
    assert sniff(photo("PNG"), "image/png; charset=binary").media_type == "image/png"
    assert sniff(photo("PNG"), "application/octet-stream").media_type == "image/png"
    for declared in ("video/mp4", "text/html", "image/svg+xml", "application/json", "nonsense"):
        with pytest.raises(UnsupportedFormatError, match="declared"):
            sniff(photo("PNG"), declared)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000), st.text(max_size=50))
def test_nothing_but_a_refusal_is_raised(content: bytes, declared: str) -> None:
    with contextlib.suppress(UnsupportedFormatError):
        assert sniff(content, declared).media_type in (*IMAGE_TYPES, *VIDEO_TYPES)


def test_data_urls_give_type_and_content() -> None:
    assert parse_data_url("data:image/png;base64,AAEC", 10) == ("image/png", b"\0\1\2")
    assert parse_data_url("DATA:image/PNG;charset=utf-8;BASE64,AAEC", 10)[1] == b"\0\1\2"
    assert parse_data_url("data:;base64,AAEC", 10) == (None, b"\0\1\2")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "data:",
            "data:image/png,AAEC",
            "data:image/png;base64",
            "data:image/png;base64,",
            "http://a/b",
        ),
        *("data:image/png;base64,A", "data:image/png;base64,AA!C", "data:image/png;base64,é", "file:///etc"),
        *("data:image/png;base64,\udcff", "data:" + "a" * 10_000 + ";base64,AAEC", "data:a/b;c=" + ";" * 300),
    ],
)
def test_damaged_data_urls_are_refused(url: str) -> None:
    with pytest.raises(RefusedError):
        parse_data_url(url, 10)


def test_large_data_urls_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(TooLargeError):
        parse_data_url("data:image/png;base64," + "!" * 100, 10)
    with pytest.raises(TooLargeError):
        parse_data_url("data:image/png;base64,AAECAAEC", 5)
    assert parse_data_url("data:image/png;base64,AAECAAEC", 6)[1] == b"\0\1\2\0\1\2"


def test_arrays_that_hold_objects_stay_outside(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UnsupportedFormatError):
        sniff(tmp_path / "objects.npy")
