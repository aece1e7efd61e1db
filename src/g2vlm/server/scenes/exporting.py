"""Scenes as files of every format, made when they are first asked for."""

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import g2vlm.export  # noqa: F401  (makes its formats known)
from g2vlm.errors import InputError
from g2vlm.scene.formats import FORMATS, ZIP, Format
from g2vlm.scene.scene import Scene
from g2vlm.scene.storage import read_npz
from g2vlm.server.guard.refusals import NotFoundError
from g2vlm.server.scenes.jobs import SCENE_FILE
from g2vlm.server.store.store import Store

_BLOCK = 1 << 20
MEDIA_TYPES: Mapping[str, str] = {
    ".glb": "model/gltf-binary",
    ".html": "text/html; charset=utf-8",
    ".obj": "model/obj",
    ".txt": "text/plain; charset=utf-8",
    ".usdz": "model/vnd.usdz+zip",
    ".zip": "application/zip",
}
"""Of files whose ending says something to browsers; the others are bytes."""
DEFAULT_FOLDER = "colmap"
"""What a `.zip` holds unless it is said."""


def _installed() -> list[Format]:
    return [
        each
        for each in FORMATS.values()
        if each.module is None or importlib.util.find_spec(each.module) is not None
    ]


def endings() -> tuple[str, ...]:
    """Endings that scenes can be asked for, without the dot."""
    found = {ending for each in _installed() for ending in each.endings}
    return tuple(sorted(ending[1:] for ending in {*found, ZIP}))


def kinds() -> tuple[str, ...]:
    """Formats that scenes can be asked for."""
    return tuple(sorted(each.kind for each in _installed()))


def file_name(ending: str, kind: str | None) -> str:
    """Name of a file of a scene in the store, which says its format.

    Args:
        ending: without the dot.
        kind: of the format; by the ending if None.

    Raises:
        InputError: they do not go together.
    """
    if f".{ending}" == ZIP:
        kind = kind or DEFAULT_FOLDER
        if not FORMATS[kind].is_folder:
            raise InputError(f"Expected a format that is a folder in a .zip, got {kind}.")
        return f"{kind}.zip"
    if kind is None:
        usual = [each.kind for each in FORMATS.values() if f".{ending}" in each.by_ending]
        if not usual:
            able = [each.kind for each in FORMATS.values() if f".{ending}" in each.endings]
            raise InputError(f"Expected a kind beside the ending .{ending}: {' or '.join(able)}.")
        kind = usual[0]
    elif f".{ending}" not in FORMATS[kind].endings:
        allowed = " or ".join(FORMATS[kind].endings) or ZIP
        raise InputError(f"Expected {kind} as {allowed}, got .{ending}.")
    return SCENE_FILE if ending == "npz" else f"{kind}.{ending}"


def stored_scene(store: Store, tenant: str, scene_id: str) -> Scene:
    """A finished scene.

    Raises:
        NotFoundError, ConflictError: there is none, or it is not finished.
    """
    with store.scenes.reading(tenant, scene_id) as files:
        return read_npz(files[SCENE_FILE])


def make_file(store: Store, tenant: str, scene_id: str, name: str) -> None:
    """Write a scene in a format, unless that was done before.

    Raises:
        NotFoundError, ConflictError: there is no such scene, or it is not finished.
        OutputError: the scene holds nothing that the format could show, or the disk is full.
    """
    with store.scenes.reading(tenant, scene_id) as files:
        if name in files:
            return
        scene = read_npz(files[SCENE_FILE])
    kind, _, ending = name.partition(".")
    with store.scenes.adding(tenant, scene_id, name) as path:
        scene.save(f"{kind}:{Path(path).with_suffix('.' + ending)}")


class OpenFile:
    """A file of a scene while it is sent; it stays on the disk until it is closed.

    Args:
        store: has it.
        tenant: whose.
        scene_id: of which scene.
        name: of the file.

    Raises:
        NotFoundError, ConflictError: it is not there.
    """

    def __init__(self, store: Store, tenant: str, scene_id: str, name: str) -> None:
        self._open = ExitStack()
        try:
            files = self._open.enter_context(store.scenes.reading(tenant, scene_id))
            if name not in files:
                raise NotFoundError(f"Expected a file of the scene, but {name} has just been removed.")
            self._file = self._open.enter_context(files[name].open("rb"))
        except BaseException:
            self._open.close()
            raise
        self.num_bytes = os.fstat(self._file.fileno()).st_size
        self.media_type = MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream")

    def blocks(self) -> Iterator[bytes]:
        """Its content."""
        try:
            while block := self._file.read(_BLOCK):
                yield block
        finally:
            self.close()

    def close(self) -> None:
        """Let go of it."""
        self._open.close()
