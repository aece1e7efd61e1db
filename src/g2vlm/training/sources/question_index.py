"""Where the lines of a question file begin, sorted by the shape of their images: read through once.

The index lies on disk and is mapped, so that memory does not grow with the number of lines.
"""

import codecs
import json
import math
import shutil
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from g2vlm.data.question_file import Conversation, parse_conversation
from g2vlm.errors import InputError
from g2vlm.inputs.text_files import decode_text
from g2vlm.training.recipes.recipe import QuestionFileData

FEWEST_TO_HOLD_OUT_FROM = 50
"""Files of fewer conversations are learned whole."""
_RECORD = np.dtype([("offset", "<i8"), ("bucket", "<i4")])
_OFFSETS, _BUCKETS, _UNSORTED = "offsets.bin", "buckets.json", "unsorted.bin"
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CHUNK = 1 << 16
_ROUNDS = 4
_LINES_PER_LOOK = 100
"""Lines between two tellings of how far the reading has come."""


@dataclass(frozen=True)
class Bucket:
    """Conversations that may share a batch."""

    views: int
    height: int
    width: int
    held_out: bool
    """Whether they are for validation."""
    first: int = 0
    """Place of the first one among all of the index."""
    count: int = 0


@dataclass(frozen=True)
class QuestionIndex:
    """An index on disk; cheap to hand to other processes."""

    data: QuestionFileData
    folder: Path
    buckets: tuple[Bucket, ...]

    @cached_property
    def _offsets(self) -> np.ndarray:
        return np.memmap(self.folder / _OFFSETS, dtype="<i8", mode="r")

    def __getstate__(self) -> dict[str, object]:
        # Workers map the file themselves; a pickled map would carry all of it.
        return {name: value for name, value in self.__dict__.items() if name != "_offsets"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)

    def conversation(self, place: int) -> Conversation:
        """The conversation at a place of the index.

        Raises:
            InputError: the line is no longer there.
        """
        offset = int(self._offsets[place])
        with self.data.path.open("rb") as file:
            file.seek(offset)
            line = file.readline()
        return _parsed(line, f"{self.data.path}, at byte {offset}", self.data)


def build_index(
    data: QuestionFileData,
    folder: Path,
    shape_of: Callable[[Conversation], tuple[int, int, int]],
    on_bytes: Callable[[int, int], None] = lambda done, total: None,
) -> QuestionIndex:
    """Read through a question file, checking every line.

    Conversations are held out by their images, so that no picture is learned and tested.

    Args:
        data: names the file.
        folder: gets the index; what was there is replaced.
        shape_of: views, height and width of the images of a conversation.
        on_bytes: told now and then (bytes read, bytes in all).

    Raises:
        InputError: naming the line and what is wrong with it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    counts = _read_through(data, folder, shape_of, on_bytes)
    total = sum(counts.values())
    if not total:
        raise InputError(
            f"Expected at least one question in {data.path}, found none: write one object per line."
        )
    if total < FEWEST_TO_HOLD_OUT_FROM or not any(not bucket.held_out for bucket in counts):
        # Few lines: all of them are learned.
        renamed = {bucket: Bucket(bucket.views, bucket.height, bucket.width, False) for bucket in counts}
    else:
        renamed = {bucket: bucket for bucket in counts}
    buckets, starts = _laid_out(counts, renamed)
    _sort(folder, starts, total)
    facts = [asdict(bucket) for bucket in buckets]
    (folder / _BUCKETS).write_text(json.dumps(facts) + "\n", encoding="utf-8")
    return QuestionIndex(data, folder, buckets)


def open_index(data: QuestionFileData, folder: Path) -> QuestionIndex:
    """An index that `build_index` wrote."""
    facts = json.loads((folder / _BUCKETS).read_text(encoding="utf-8"))
    return QuestionIndex(data, folder, tuple(Bucket(**fact) for fact in facts))


def _read_through(
    data: QuestionFileData,
    folder: Path,
    shape_of: Callable[[Conversation], tuple[int, int, int]],
    on_bytes: Callable[[int, int], None],
) -> dict[Bucket, int]:
    """Write offset and number of the bucket of every line; returns how many lines each bucket has."""
    counts: dict[Bucket, int] = {}
    numbers: dict[Bucket, int] = {}
    try:
        lines = data.path.open("rb")
    except OSError as error:
        raise InputError(
            f"Cannot read the question file {data.path}: {error.strerror}. Give the path of a .jsonl file."
        ) from error
    offset, total = 0, data.path.stat().st_size
    with lines, (folder / _UNSORTED).open("wb") as records:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                conversation = _parsed(line, f"{data.path}, line {number}", data)
                key = "\n".join(map(str, conversation.images)).encode()
                held_out = zlib.crc32(key) < data.held_out * 2**32
                bucket = Bucket(*shape_of(conversation), held_out)
                counts[bucket] = counts.get(bucket, 0) + 1
                place = numbers.setdefault(bucket, len(numbers))
                records.write(np.array([(offset, place)], dtype=_RECORD).tobytes())
            offset += len(line)
            if number % _LINES_PER_LOOK == 0:
                on_bytes(offset, total)
    return counts


def _parsed(line: bytes, where: str, data: QuestionFileData) -> Conversation:
    if line.startswith(_WIDE):
        raise InputError(f"{where}: expected UTF-8 text, got UTF-16 or UTF-32: save the file as UTF-8.")
    folder = (data.image_folder or data.path.parent).absolute()
    return parse_conversation(decode_text(line, where), where, folder)


def _laid_out(
    counts: dict[Bucket, int], renamed: dict[Bucket, Bucket]
) -> tuple[tuple[Bucket, ...], list[int]]:
    """Buckets one behind the other, and where the lines of each bucket seen while reading begin."""
    sizes: dict[Bucket, int] = {}
    within = []
    for bucket, count in counts.items():
        within.append(sizes.get(renamed[bucket], 0))
        sizes[renamed[bucket]] = within[-1] + count
    first, laid, begin = 0, [], {}
    for bucket, count in sizes.items():
        begin[bucket] = first
        laid.append(Bucket(bucket.views, bucket.height, bucket.width, bucket.held_out, first, count))
        first += count
    starts = [begin[renamed[bucket]] + place for bucket, place in zip(counts, within, strict=True)]
    return tuple(laid), starts


def _sort(folder: Path, starts: list[int], total: int) -> None:
    """Put offsets in the order of their buckets, some at a time."""
    records = np.memmap(folder / _UNSORTED, dtype=_RECORD, mode="r")
    offsets = np.memmap(folder / _OFFSETS, dtype="<i8", mode="w+", shape=(total,))
    following = np.array(starts)
    for begin in range(0, total, _CHUNK):
        chunk = records[begin : begin + _CHUNK]
        for bucket in np.unique(chunk["bucket"]):
            chosen = chunk["offset"][chunk["bucket"] == bucket]
            offsets[following[bucket] : following[bucket] + len(chosen)] = chosen
            following[bucket] += len(chosen)
    offsets.flush()
    del records
    (folder / _UNSORTED).unlink()


class Shuffle:
    """The numbers below `count` in a random order, any of which is found without listing the others.

    A small Feistel cipher permutes the next larger power of four; numbers that are too large are sent through
    it again (cycle walking).
    """

    def __init__(self, count: int, *key: int) -> None:
        self.count = count
        self._half = max(1, math.ceil(math.log2(max(count, 2)) / 2))
        self._keys = [zlib.crc32(repr((key, turn)).encode()) for turn in range(_ROUNDS)]

    def __getitem__(self, place: int) -> int:
        """The number at a place."""
        mask = (1 << self._half) - 1
        number = place
        while True:
            left, right = number >> self._half, number & mask
            for key in self._keys:
                mixed = ((right ^ key) * 0x9E3779B97F4A7C15 + key) & (2**64 - 1)
                left, right = right, left ^ ((mixed >> 29) & mask)
            number = (left << self._half) | right
            if number < self.count:
                return number
