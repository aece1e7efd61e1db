"""Reading prepared data sets: any frame at once, from a disk or over a network.

The index says where in which shard each member begins, so that a frame is a few reads by position: nothing
is streamed in order, views are picked by what they see, and a run that resumes asks for the same frames.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from g2vlm.data.posed_frame import PosedFrame
from g2vlm.data.shards.encoding import VERSION, decode_frame
from g2vlm.data.shards.writing import ABOUT_NAME, FRAMES_NAME, PAIRS_NAME, parquet
from g2vlm.errors import InputError, MissingExtraError

_TRIES = 3
"""Of each read over a network."""


@dataclass(frozen=True)
class SceneIndex:
    """The frames of one scene, by position in the whole data set."""

    name: str
    first: int
    count: int

    def __len__(self) -> int:
        return self.count


class PreparedData:
    """A folder that `g2vlm data prepare` wrote, on a disk or at an address (https, s3, gs).

    Args:
        place: folder or address.

    Raises:
        InputError: there is no prepared data, or that of a later version.
        MissingExtraError: pyarrow, or what an address needs, is not installed.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place).rstrip("/")
        try:
            self.about: dict[str, Any] = json.loads(self._whole(ABOUT_NAME))
            version = self.about["version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"Expected prepared data in {self.place} (a {ABOUT_NAME} beside shards), got {error!r}: "
                "make them with  g2vlm data prepare."
            ) from error
        if version != VERSION:
            raise InputError(
                f"Expected prepared data of version {VERSION} in {self.place}, got {version}: use the "
                "g2vlm that wrote them, or prepare them again."
            )

    def __getstate__(self) -> dict[str, Any]:
        # Processes that make batches read the index themselves: it may be larger than what they need.
        return {"place": self.place, "about": self.about}

    @cached_property
    def frames(self) -> Any:
        """The index: one row for each frame, in the order of the shards (a pyarrow table)."""
        import io

        return parquet().read_table(io.BytesIO(self._whole(FRAMES_NAME)))

    @cached_property
    def scenes(self) -> tuple[SceneIndex, ...]:
        """All scenes, in the order of the shards."""
        names = self.frames.column("scene").to_pylist()
        found, first = [], 0
        for i in range(1, len(names) + 1):
            if i == len(names) or names[i] != names[first]:
                found.append(SceneIndex(names[first], first, i - first))
                first = i
        return tuple(found)

    @cached_property
    def _pairs(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        import io

        table = parquet().read_table(io.BytesIO(self._whole(PAIRS_NAME)))
        names = table.column("scene").to_pylist()
        columns = [table.column(name).to_numpy() for name in ("first", "second", "overlap")]
        limits: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            limits.setdefault(name, [i, i])[1] = i + 1
        return {name: tuple(c[a:b] for c in columns) for name, (a, b) in limits.items()}

    def overlap(self, scene: SceneIndex) -> Float32[np.ndarray, "views views"]:
        """Share of what each view of a scene (row) sees that each other view (column) sees too."""
        result = np.eye(scene.count, dtype=np.float32)
        if scene.name in self._pairs:
            first, second, share = self._pairs[scene.name]
            result[first, second] = share
        return result

    def __len__(self) -> int:
        return int(self.about["frames"])

    def __getitem__(self, number: int) -> PosedFrame:
        """Frame `number`, from 0, in the order of the index.

        Raises:
            InputError: its shard cannot be read, or holds something else.
        """
        row = self.frames.slice(number, 1).to_pylist()[0]
        begin, end = row["offsets"][0], row["offsets"][-1] + row["sizes"][-1]
        where = f"{self.place}/{row['shard']}, {row['key']}"
        try:
            block = self._range(row["shard"], begin, end)
        except OSError as error:
            raise InputError(f"Cannot read {where}: {error}.") from error
        places = zip(row["members"], row["offsets"], row["sizes"], strict=True)
        return decode_frame({m: block[at - begin : at - begin + size] for m, at, size in places}, where)

    def __iter__(self) -> Iterator[PosedFrame]:
        for number in range(len(self)):
            yield self[number]

    @property
    def is_remote(self) -> bool:
        """Whether it lies at an address."""
        return "://" in self.place

    def _whole(self, name: str) -> bytes:
        if not self.is_remote:
            return (Path(self.place) / name).read_bytes()
        return bytes(self._retried(lambda system, base: system.cat_file(f"{base}/{name}")))

    def _range(self, name: str, begin: int, end: int) -> bytes:
        """Bytes of a shard."""
        if self.is_remote:
            return bytes(
                self._retried(lambda system, base: system.cat_file(f"{base}/{name}", start=begin, end=end))
            )
        with (Path(self.place) / name).open("rb") as shard:
            shard.seek(begin)
            return shard.read(end - begin)

    def _retried(self, read: Any) -> Any:
        try:
            import fsspec

            system, base = fsspec.core.url_to_fs(self.place)
        except ImportError as error:
            raise MissingExtraError(f"Reading {self.place} ({error})", "data") from error
        for attempt in range(_TRIES):
            try:
                return read(system, base)
            except FileNotFoundError:
                raise
            except OSError:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")
