"""Mixtures of data, as YAML files say them.

    parts:
      - prepared: prepared/scannet        # what `g2vlm data prepare` wrote: a folder or an address
        weight: 3
        choice: covisibility              # or random, stratified, window
      - synthetic: true                   # the recipe's own rooms
        weight: 1
      - questions: spatial.jsonl          # answers, where the recipe learns any
        images: photos
        weight: 1

Weights are shares of the optimisation steps. Paths are relative to the file. Entries with `missing: skip` are
left out where their folder is not there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g2vlm.data.shards.choosing import ViewChoice
from g2vlm.errors import InputError, MissingExtraError
from g2vlm.training.recipes.recipe import (
    Mixture,
    MixturePart,
    QuestionFileData,
    Recipe,
    ShardData,
    SyntheticData,
    parts_of,
)
from g2vlm.training.recipes.stages import Stage

_KINDS = ("prepared", "synthetic", "questions")
_KEYS = {*_KINDS, "weight", "choice", "images", "held_out", "missing", "note"}


@dataclass(frozen=True)
class ReadMixture:
    """A mixture, and what of its file does not take part."""

    mixture: Mixture
    skipped: tuple[str, ...]


def read_mixture(path: Path, recipe: Recipe) -> ReadMixture:
    """The mixture of a file, for a recipe that has rooms of its own.

    Args:
        path: the YAML file.
        recipe: gives prepared data their views, sizes and changes, and is asked what it learns.

    Raises:
        InputError: the file is malformed, names data that are not there, or data that the recipe cannot
        learn.
    """
    own = next((part.data for part in parts_of(recipe.data) if isinstance(part.data, SyntheticData)), None)
    if own is None:
        raise InputError(f"Expected a recipe with rooms of its own for {path}, got {recipe.name}.")
    parts, skipped = [], []
    for number, entry in enumerate(_entries(path)):
        where = f"{path}, part {number + 1}"
        kind = _kind(entry, where)
        weight = entry.get("weight", 1)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
            raise InputError(f"{where}: expected a weight above zero, got {weight!r}.")
        data: SyntheticData | QuestionFileData | ShardData = own
        if kind != "synthetic":
            place = _place(entry[kind], path.parent)
            if entry.get("missing") == "skip" and "://" not in place and not Path(place).exists():
                skipped.append(place)
                continue
            data = _shards(entry, place, own, where) if kind == "prepared" else _questions(entry, place, path)
        _require_use(data, recipe, where)
        parts.append(MixturePart(data, float(weight)))
    if not parts:
        raise InputError(f"Expected data in {path}, but of its parts none is there: {', '.join(skipped)}.")
    return ReadMixture(Mixture(tuple(parts)), tuple(skipped))


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("Reading mixtures", "data") from error
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"Expected a YAML file with parts in {path}: {error}.") from error
    entries = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"Expected a list of parts in {path}, got {type(entries).__name__}.")
    return entries


def _kind(entry: dict[str, Any], where: str) -> str:
    unknown = sorted(set(map(str, entry)) - _KEYS)
    kinds = [kind for kind in _KINDS if kind in entry]
    if unknown or len(kinds) != 1:
        raise InputError(
            f"{where}: expected one of {', '.join(_KINDS)}, with {', '.join(sorted(_KEYS - set(_KINDS)))} "
            f"where wanted, got {', '.join(map(str, entry))}."
        )
    return kinds[0]


def _place(value: object, folder: Path) -> str:
    text = str(value)
    return text if "://" in text else str(folder / text)


def _shards(entry: dict[str, Any], place: str, own: SyntheticData, where: str) -> ShardData:
    known = {choice.value: choice for choice in ViewChoice}
    choice = entry.get("choice", ViewChoice.COVISIBILITY.value)
    if choice not in known:
        raise InputError(f"{where}: expected a choice of views ({', '.join(known)}), got {choice!r}.")
    held_out = entry.get("held_out", ShardData.held_out)
    if not isinstance(held_out, int | float) or not 0 <= held_out < 1:
        raise InputError(f"{where}: expected held_out from 0 to below 1, got {held_out!r}.")
    return ShardData(place, own, known[choice], float(held_out))


def _questions(entry: dict[str, Any], place: str, path: Path) -> QuestionFileData:
    images = entry.get("images")
    return QuestionFileData(Path(place), None if images is None else path.parent / str(images))


def _require_use(data: object, recipe: Recipe, where: str) -> None:
    if isinstance(data, ShardData) and not recipe.stage.has_geometry:
        raise InputError(
            f"{where}: prepared frames teach geometry, but the recipe {recipe.name} learns answers alone."
        )
    if isinstance(data, QuestionFileData) and recipe.stage is Stage.GEOMETRY:
        raise InputError(f"{where}: questions teach answers, but the recipe {recipe.name} learns geometry.")
