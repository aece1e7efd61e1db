"""Writing shards: one part at a time, completely or not at all."""

import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

from g2vlm.data.posed_frame import PosedFrame
from g2vlm.data.shards.encoding import VERSION, encode_frame
from g2vlm.data.shards.overlap import Outlook, outlook_of, overlaps
from g2vlm.errors import MissingExtraError
from g2vlm.scene.writing import atomic_path

INDEX_FOLDER, FRAMES_NAME, PAIRS_NAME, ABOUT_NAME = "index", "frames.parquet", "pairs.parquet", "dataset.json"
_MOST_NEIGHBOURS = 256
"""Pairs that are kept of each view: those of largest overlap."""


def parquet() -> ModuleType:
    """The library that reads and writes indexes.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("An index of prepared data", "data") from error
    return pyarrow.parquet


@dataclass
class PartWriter:
    """One shard with its part of the index; nothing of it is seen before it is whole.

    Used as a context: leaving it well renames the files into place, the record last; an exception leaves
    nothing behind.
    """

    folder: Path
    number: int
    num_frames: int = 0
    num_bytes: int = 0
    scenes: list[str] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    """More that the part's record will say."""

    @property
    def name(self) -> str:
        """File name of the shard."""
        return f"shard-{self.number:05d}.tar"

    def __enter__(self) -> "PartWriter":
        parquet()
        self._stack = ExitStack()
        index = self.folder / INDEX_FOLDER
        # Left in reverse order: the shard is in place before its index, and that before the record.
        self._record = self._stack.enter_context(atomic_path(index / f"part-{self.number:05d}.json"))
        self._pairs = self._stack.enter_context(atomic_path(index / f"pairs-{self.number:05d}.parquet"))
        self._frames = self._stack.enter_context(atomic_path(index / f"frames-{self.number:05d}.parquet"))
        shard = self._stack.enter_context(atomic_path(self.folder / self.name))
        self._tar = self._stack.enter_context(tarfile.open(shard, "w", format=tarfile.USTAR_FORMAT))
        self._rows: list[dict[str, Any]] = []
        self._pair_rows: list[dict[str, Any]] = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self._write_index()
            except BaseException as failure:
                self._stack.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._stack.__exit__(kind, error, trace)

    def add_scene(self, scene: str, frames: Iterable[PosedFrame]) -> int:
        """Append all frames of one scene; returns how many there were."""
        outlooks: list[Outlook] = []
        folder = f"{len(self.scenes):04d}-{safe_name(scene)}"
        for number, frame in enumerate(frames):
            outlook = outlook_of(frame)
            self._add(frame, f"{folder}/{number:06d}", number, outlook)
            outlooks.append(outlook)
        self.scenes.append(scene)
        if outlooks:
            self._pair_rows += pair_rows(self._rows[-1]["scene"], overlaps(outlooks))
        return len(outlooks)

    def _add(self, frame: PosedFrame, key: str, number: int, outlook: Outlook) -> None:
        near, far = outlook.range
        width, height = frame.size
        row: dict[str, Any] = {
            "scene": frame.scene,
            "frame": frame.frame,
            "number": number,
            "shard": self.name,
            "key": key,
            "width": width,
            "height": height,
            "scale": frame.scale.value,
            "K": frame.K.ravel().tolist(),
            "T_world_camera": frame.T_world_camera.ravel().tolist(),
            "near": near,
            "far": far,
            "frustum": outlook.frustum().ravel().tolist(),
            "members": [],
            "offsets": [],
            "sizes": [],
        }
        for ending, content in encode_frame(frame).items():
            info = tarfile.TarInfo(f"{key}.{ending}")
            info.size, info.mode = len(content), 0o644
            # Where the contents will begin: readers fetch them without reading the shard.
            offset = self._tar.offset + len(info.tobuf(tarfile.USTAR_FORMAT))
            self._tar.addfile(info, io.BytesIO(content))
            row["members"].append(ending)
            row["offsets"].append(offset)
            row["sizes"].append(len(content))
            self.num_bytes += len(content)
        self._rows.append(row)
        self.num_frames += 1

    def _write_index(self) -> None:
        import pyarrow

        rows = pyarrow.Table.from_pylist(self._rows, schema=frames_schema())
        parquet().write_table(rows, self._frames)
        parquet().write_table(pyarrow.Table.from_pylist(self._pair_rows, schema=pairs_schema()), self._pairs)
        about = {
            **self.record,
            "shard": self.name,
            "scenes": self.scenes,
            "frames": self.num_frames,
            "bytes": self.num_bytes,
        }
        self._record.write_text(json.dumps(about, indent=1), encoding="utf-8")


def frames_schema() -> Any:
    """Columns of the frames: one row for each picture."""
    import pyarrow as pa

    numbers = pa.list_(pa.float64())
    columns: list[tuple[str, Any]] = [
        (name, pa.string()) for name in ("scene", "frame", "shard", "key", "scale")
    ]
    columns += [(name, pa.int32()) for name in ("number", "width", "height")]
    columns += [(name, numbers) for name in ("K", "T_world_camera", "frustum")]
    columns += [("near", pa.float64()), ("far", pa.float64()), ("members", pa.list_(pa.string()))]
    columns += [("offsets", pa.list_(pa.int64())), ("sizes", pa.list_(pa.int64()))]
    return pa.schema(columns)


def pairs_schema() -> Any:
    """Columns of the pairs: views of one scene by number, and the overlap of the first with the second."""
    import pyarrow as pa

    columns = [
        ("scene", pa.string()),
        ("first", pa.int32()),
        ("second", pa.int32()),
        ("overlap", pa.float32()),
    ]
    return pa.schema(columns)


def pair_rows(scene: str, overlap: np.ndarray) -> list[dict[str, Any]]:
    """Rows of the pairs of one scene whose overlap is not zero, the best of each view."""
    rows = []
    for first, shares in enumerate(overlap):
        order = np.argsort(-shares, kind="stable")[: _MOST_NEIGHBOURS + 1]
        rows += [
            {"scene": scene, "first": first, "second": int(second), "overlap": float(shares[second])}
            for second in order
            if second != first and shares[second] > 0
        ]
    return rows


def safe_name(name: str) -> str:
    """A name as a path inside a tar: letters, digits, `-` and `_`, at most 40 of them."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[-40:].strip("-") or "scene"


def finished_parts(folder: Path) -> list[dict[str, Any]]:
    """Records of all whole parts in a folder, in order."""
    records = []
    for path in sorted((folder / INDEX_FOLDER).glob("part-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if (folder / record["shard"]).is_file():
            records.append({**record, "number": int(path.stem.removeprefix("part-"))})
    return records


def write_dataset(folder: Path, about: Mapping[str, object]) -> None:
    """Join the parts' indexes, and say what the folder holds; readers need these files and the shards.

    Args:
        folder: of the shards.
        about: more for `dataset.json`.
    """
    parts = finished_parts(folder)
    for name, kind, schema in (
        (FRAMES_NAME, "frames", frames_schema()),
        (PAIRS_NAME, "pairs", pairs_schema()),
    ):
        with atomic_path(folder / name) as temporary, parquet().ParquetWriter(temporary, schema) as writer:
            for part in parts:
                writer.write_table(
                    parquet().read_table(folder / INDEX_FOLDER / f"{kind}-{part['number']:05d}.parquet")
                )
    totals = {
        "version": VERSION,
        "scenes": sum(len(part["scenes"]) for part in parts),
        "frames": sum(part["frames"] for part in parts),
        "bytes": sum(part["bytes"] for part in parts),
        "shards": [part["shard"] for part in parts],
    }
    with atomic_path(folder / ABOUT_NAME) as temporary:
        temporary.write_text(json.dumps({**about, **totals}, indent=1) + "\n", encoding="utf-8")
