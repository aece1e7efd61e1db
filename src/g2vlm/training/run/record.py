"""What a run is made of, written beside it, so that nobody continues it with something else unawares."""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from g2vlm.data.shards.reading import PreparedData
from g2vlm.errors import InputError
from g2vlm.scene.writing import atomic_path
from g2vlm.training.recipes.recipe import FromCheckpoint, QuestionFileData, Recipe, ShardData, parts_of
from g2vlm.training.sources.shards import learned_scenes

RECORD_NAME = "run.json"
MODEL_RECORD_NAME = "TRAINING.json"
_PACKAGES = ("torch", "numpy", "tokenizers", "transformers", "pillow", "safetensors")
_ROOMS = ("data", "geometry", "inputs", "model", "training")
"""Parts of the package whose code decides the outcome of a run."""
_SAMPLES = 64
"""Places of a large file that its fingerprint is made of, beside its size and its beginning."""
_SAMPLE_BYTES = 4096


def describe_run(recipe: Recipe, start_folder: Path) -> dict[str, Any]:
    """The recipe, its data, its first weights and the versions of all that takes part, as plain JSON.

    Args:
        recipe: what is trained.
        start_folder: of the checkpoint that the recipe starts from; not read where weights are drawn.
    """
    data: dict[str, Any] = {}
    for number, part in enumerate(parts_of(recipe.data)):
        if isinstance(part.data, QuestionFileData):
            data[f"questions {number}"] = fingerprint(part.data.path, whole=True)
        elif isinstance(part.data, ShardData):
            about = PreparedData(part.data.path).about
            # By name: an evaluation of one of them would be no test.
            data[f"prepared {number}"] = {"about": about, "scenes": learned_scenes(part.data)}
        else:
            worlds = {world for phase in part.data.phases for world in phase.worlds}
            data.update((world.value, plain(world.config)) for world in worlds)
    start = {}
    if isinstance(recipe.start, FromCheckpoint):
        start = {path.name: fingerprint(path) for path in sorted(start_folder.glob("*.safetensors"))}
    return {
        "recipe": plain(recipe),
        "data": data,
        "start": start,
        "versions": {"g2vlm": _own_version(), **_versions()},
        "code": code_digest(),
    }


def plain(value: object) -> Any:
    """A frozen value as JSON: dataclasses as objects that say their class, enums by value, sets sorted."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, frozenset | set):
        return sorted(plain(item) for item in value)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def fingerprint(path: Path, *, whole: bool = False) -> str:
    """Digest of a file's size and contents; of gigabytes, only evenly spread samples unless `whole`.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return _fingerprint(path, whole)
    except OSError as error:
        raise InputError(
            f"Cannot read {path}: {error.strerror}. Give the path of an existing file."
        ) from error


def _fingerprint(path: Path, whole: bool) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if whole or size <= 1 << 24:
            while block := file.read(1 << 20):
                digest.update(block)
        else:
            # Headers of safetensors, with all names and shapes, stand at the beginning.
            digest.update(file.read(1 << 20))
            for i in range(_SAMPLES):
                file.seek(i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:32]


def code_digest() -> str:
    """Digest of the code that decides the outcome of a run."""
    package = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((package / room).rglob("*.py")):
            digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()[:32]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of two descriptions differs in a way that changes the outcome, one line each.

    How often a run logs, validates and saves does not; nor does where a file lies whose contents are equal.
    The code is left to `code_changed`.
    """
    old, new = dict(_leaves(before)), dict(_leaves(now))
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if name.startswith(("recipe.rhythm.", "code")) or name.endswith((".path", ".image_folder")):
            continue
        if old.get(name) != new.get(name):
            lines.append(f"{name}: {_shown(old, name)} before, {_shown(new, name)} now")
    return lines


def settle_record(folder: Path, now: dict[str, Any], *, has_state: bool, override: bool) -> list[str]:
    """Compare a run with what its folder says about it, and write the description there.

    Args:
        folder: of the run.
        now: what is about to be trained.
        has_state: whether there is anything to continue; without it, the folder may become another run.
        override: continue in spite of differences.

    Returns:
        What people should know: the differences that were overridden, and whether the code has changed.

    Raises:
        InputError: there is a state, it belongs to another recipe, other data, weights or versions, and
            `override` is not set.
    """
    path = folder / RECORD_NAME
    before = _read(path) if has_state else None
    changes = []
    if has_state:
        changes = ["no description of the run was found"] if before is None else differences(before, now)
    if changes and not override:
        raise InputError(
            f"Expected to continue the run in {folder} as it began, but this differs:\n  "
            + "\n  ".join(changes)
            + "\nGive the same recipe and versions, another --folder for a new run, or --override to go on "
            "like this."
        )
    notes = [f"overridden: {change}" for change in changes]
    if before is not None and before.get("code") != now["code"]:
        notes.append("the code of g2vlm has changed since this run began or was last continued")
    history = [] if before is None else before.get("history", [])
    if before is not None and notes:
        history = [*history, {key: before[key] for key in before if key != "history"}]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({**now, "history": history}, indent=1) + "\n", encoding="utf-8")
    return notes


def copy_record(run: Path, model: Path) -> None:
    """Write beside exported weights what they were trained on: an evaluation refuses what they have seen.

    Args:
        run: folder of the run, with its description.
        model: folder of the weights.
    """
    record = _read(run / RECORD_NAME)
    if record is None:
        return
    kept = {
        "recipe": record["recipe"].get("name"),
        **{key: record[key] for key in ("data", "start", "versions")},
    }
    earlier = [entry["data"] for entry in record.get("history", []) if "data" in entry]
    with atomic_path(model / MODEL_RECORD_NAME) as temporary:
        text = json.dumps({**kept, "earlier_data": earlier}, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key != "history":
                yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{name}.{i}")
    else:
        yield name, value


def _shown(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "nothing"


def _own_version() -> str:
    import g2vlm

    return g2vlm.__version__


def _versions() -> dict[str, str]:
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a bare training machine
            continue
    return found
