"""What an evaluation found, with everything needed to know what it is about, and how it is stored."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from g2vlm.checkpoints.files import WEIGHTS
from g2vlm.errors import CheckpointError, InputError
from g2vlm.evaluation.published import Published
from g2vlm.scene.writing import atomic_path

SCHEMA_VERSION = 1
_SAMPLED_BLOCKS = 64
_BLOCK_BYTES = 1 << 20


class Better(Enum):
    """Which direction is progress."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True)
class Figure:
    """One number of a result."""

    key: str
    """Unique and stable: room, what, variant, joined by slashes."""
    label: str
    """For people."""
    value: float
    low: float
    """Lower end of the 95 % interval (bootstrap over scenes)."""
    high: float
    """Upper end."""
    unit: str
    """"share" (0 to 1), "m", "deg", or empty for a ratio."""
    better: Better
    num_items: int
    """Images, pairs of views or questions that were averaged."""
    num_scenes: int
    standard_error: float | None = None
    """Of the value, clustered by scene (bootstrap); None in results of earlier versions."""


@dataclass(frozen=True)
class Comparison:
    """What one method gets on one part of the scenes."""

    part: str
    """Set or category; empty for all scenes."""
    method: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class CheckpointIdentity:
    """Which weights were measured."""

    name: str
    """What the user called it, or the folder's name."""
    fingerprint: str
    """First 16 digits of a SHA-256 over configuration, tokenizer and weights; see `fingerprint`."""


@dataclass(frozen=True)
class EvaluationResult:
    """One benchmark, one checkpoint."""

    task: str
    """Name and version of the benchmark."""
    checkpoint: CheckpointIdentity
    package_version: str
    date: str
    """ISO 8601, UTC, of the end of the run."""
    settings: dict[str, Any]
    """All choices the figures depend on: seeds, views, resolution, sights, precision, view attention."""
    num_scenes: int
    failures: tuple[tuple[str, str], ...]
    """Scenes whose geometry could not be compared, and why."""
    figures: tuple[Figure, ...]
    seconds: float
    """Spent on measuring, over all parts of a resumed run."""
    comparisons: tuple[Comparison, ...] = ()
    """The model beside simpler methods on the same scenes, part by part."""
    published: tuple[Published, ...] = ()
    """What others report on the same benchmark."""

    def figure(self, key: str) -> Figure | None:
        """Look a figure up."""
        return next((figure for figure in self.figures if figure.key == key), None)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it back."""
        stored = dataclasses.asdict(self)
        stored["figures"] = [_stored(figure) for figure in self.figures]
        stored["comparisons"] = [
            {"part": one.part, "method": one.method, "figures": [_stored(f) for f in one.figures]}
            for one in self.comparisons
        ]
        stored["failures"] = [list(failure) for failure in self.failures]
        return {"schema_version": SCHEMA_VERSION, **stored}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "EvaluationResult":
        """Read a stored result.

        Raises:
            InputError: it is no result, or one of another version.
        """
        version = stored.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(
                f"Expected an evaluation result of version {SCHEMA_VERSION}, got {version!r}: evaluate again."
            )
        try:
            names = [name.name for name in dataclasses.fields(cls) if name.name in stored]
            values = {name: stored[name] for name in names}
            values["checkpoint"] = CheckpointIdentity(**stored["checkpoint"])
            values["failures"] = tuple((scene, reason) for scene, reason in stored["failures"])
            values["figures"] = _figures(stored["figures"])
            values["comparisons"] = tuple(
                Comparison(one["part"], one["method"], _figures(one["figures"]))
                for one in stored.get("comparisons", ())
            )
            values["published"] = tuple(Published(**one) for one in stored.get("published", ()))
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The evaluation result cannot be read ({error!r}): evaluate again.") from error


def _stored(figure: Figure) -> dict[str, Any]:
    return {**dataclasses.asdict(figure), "better": figure.better.value}


def _figures(stored: list[dict[str, Any]]) -> tuple[Figure, ...]:
    return tuple(Figure(**{**figure, "better": Better(figure["better"])}) for figure in stored)


def write_result(result: EvaluationResult, path: Path) -> None:
    """Write a result, completely or not at all.

    Raises:
        OutputError: the place cannot be written.
    """
    with atomic_path(path) as temporary:
        text = json.dumps(result.to_json(), ensure_ascii=False, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_result(path: Path) -> EvaluationResult:
    """Read what `write_result` wrote.

    Raises:
        InputError: the file is missing, is no JSON, or holds no result.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"Expected an evaluation result in {path}: {error}.") from error
    if not isinstance(stored, dict):
        raise InputError(f"Expected a JSON object in {path}, got a {type(stored).__name__}.")
    return EvaluationResult.from_json(stored)


def fingerprint(folder: Path) -> str:
    """What tells the weights of one checkpoint from those of another: 16 hexadecimal digits.

    Hashes names, sizes and contents of the json files and the weights. Of files above 64 MiB the size, the
    beginning (the header, with all names and shapes), the end and 62 evenly spread blocks count: seconds
    instead of minutes for 18 GB, and trained weights differ everywhere.

    Raises:
        CheckpointError: the folder holds no weights.
    """
    files = sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")])
    if not any(file.suffix == ".safetensors" for file in files):
        raise CheckpointError(f"Expected {WEIGHTS} in {folder}, found no weights.")
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}\n".encode())
        blocks = -(-size // _BLOCK_BYTES)
        step = max(1.0, (blocks - 1) / (_SAMPLED_BLOCKS - 1))
        with file.open("rb") as stream:
            for k in range(min(blocks, _SAMPLED_BLOCKS)):
                stream.seek(round(k * step) * _BLOCK_BYTES)
                digest.update(stream.read(_BLOCK_BYTES))
    return digest.hexdigest()[:16]
