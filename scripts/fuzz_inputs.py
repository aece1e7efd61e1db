"""Feed broken inputs to everything of the service that reads what strangers send.

python scripts/fuzz_inputs.py --inputs 1000000 --state fuzz.json

Inputs are valid files with bytes flipped, lengths exaggerated, parts cut, doubled and mixed. Each must be
read or refused with an error of g2vlm.errors; anything else is a crash, counted by kind, with the input kept.
A process for decoding may die of an input: that is what it is for, and counted apart. Every input follows
from the seed, its kind and its number, and the state says how far each kind has come, so a run that was
interrupted goes on where it was.
"""

import argparse
import atexit
import contextlib
import io
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from g2vlm.errors import G2VLMError, InputError

SHARES = {"image": 0.4, "video": 0.05, "sniff": 0.15, "safetensors": 0.1, "npz": 0.1, "json": 0.2}
"""Part of all inputs that are of each kind."""
CHUNK = 2000  # inputs that one process tries before it says how far it came
_TOTALS = ("tried", "crashed", "processes_lost")
_TRICKY = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(seed: bytes, generator: random.Random) -> bytes:
    """A file that was good, after one to eight accidents."""
    data = bytearray(seed)
    for _ in range(generator.choice((1, 1, 2, 3, 8))):
        if not data:
            break
        place = generator.randrange(len(data))
        if generator.random() < 0.5:
            place = min(place, generator.randrange(1, 65))  # headers matter most
        # Cutting comes last and seldom: what is left of most files is refused for that alone.
        kind = generator.choice((0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 6))
        if kind == 0:
            data[place % len(data)] ^= 1 << generator.randrange(8)
        elif kind == 1:
            data[place % len(data)] = generator.randrange(256)
        elif kind == 2:
            value = struct.pack(generator.choice("<>") + "I", generator.choice(_TRICKY))
            data[place : place + 4] = value
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            del data[place : place + generator.randint(1, 64)]
        elif kind == 5:
            end = place + generator.randint(1, 256)
            data[place:place] = data[place:end]
        else:
            data[place:place] = generator.randbytes(generator.randint(1, 32))
    return bytes(data)


def image_seeds() -> list[bytes]:
    """Small photos of every format."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 4), np.uint8)
    color, alpha = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels)
    gray = Image.fromarray(pixels[..., 0])
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    seeds = []
    for image, kind, options in (
        (color, "JPEG", {}),
        (gray, "JPEG", {"progressive": True}),
        (color.convert("CMYK"), "JPEG", {}),
        (color, "PNG", {}),
        (alpha, "PNG", {}),
        (deep, "PNG", {}),
        (color.quantize(16), "PNG", {}),
        (color, "GIF", {"save_all": True, "append_images": [gray, color.quantize(4)]}),
        (color, "WEBP", {}),
        (alpha, "WEBP", {"lossless": True, "save_all": True, "append_images": [alpha.rotate(90)]}),
        (color, "BMP", {}),
        (color, "TIFF", {"compression": "tiff_lzw"}),
        (deep, "TIFF", {}),
        (color, "TIFF", {"compression": "jpeg"}),
        (color, "AVIF", {}),
    ):
        file = io.BytesIO()
        exif = Image.Exif()
        exif[274] = 6
        image.save(file, kind, **({"exif": exif} if kind in ("JPEG", "WEBP") else {}), **options)
        seeds.append(file.getvalue())
    return seeds


def video_seeds() -> list[bytes]:
    """Short videos in several containers."""
    import cv2

    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for ending, code in ((".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "mp4v"), (".mov", "MJPG")):
            path = f"{folder}/video{ending}"
            writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*code), 10, (64, 48))
            for number in range(6):
                writer.write(np.full((48, 64, 3), number * 40, np.uint8))
            writer.release()
            seeds.append(Path(path).read_bytes())
    return seeds


def safetensors_seeds() -> list[bytes]:
    """A header with two tensors and their values."""
    header = {
        "__metadata__": {"format": "pt"},
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    }
    text = json.dumps(header).encode()
    return [struct.pack("<Q", len(text)) + text + bytes(32)]


def npz_seeds() -> list[bytes]:
    """A stored scene."""
    from g2vlm.scene.scale import Scale, ScaleKind
    from g2vlm.scene.scene import Scene
    from g2vlm.scene.storage import write_npz
    from g2vlm.scene.view import View

    points = np.ones((4, 5, 3), np.float32)
    view = View(
        name="a",
        rgb=np.zeros((4, 5, 3), np.uint8),
        points_camera=points,
        T_world_camera=np.eye(4, dtype=np.float32),
        K=np.array([[4, 0, 2], [0, 4, 2], [0, 0, 1]], np.float32),
        confidence=np.ones((4, 5), np.float32),
        valid=np.ones((4, 5), bool),
        original_size=(5, 4),
        T_model_original=np.eye(3),
    )
    with tempfile.TemporaryDirectory() as folder:
        write_npz(Scene((view,), Scale(ScaleKind.RELATIVE, "network")), f"{folder}/scene.npz")
        return [Path(f"{folder}/scene.npz").read_bytes()]


def json_seeds() -> list[bytes]:
    """Bodies of requests."""
    photo = "data:image/png;base64,iVBORw0KGgo="
    parts = [{"type": "image_url", "image_url": {"url": photo}}, {"type": "text", "text": "How far?"}]
    body = {"model": "g2vlm", "messages": [{"role": "user", "content": parts}], "temperature": 0.5, "n": 1}
    deep: Any = {"a": []}
    for _ in range(40):
        deep = [deep, {"b": 1e308, "c": "\ud83d"}]
    return [json.dumps(body).encode(), json.dumps(deep).encode(), b'{"a": NaN, "b": 1e999, "c": -0}']


def temporary_folder() -> Path:
    """A folder that goes with this process."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


def decoding_reader(is_video: bool) -> Callable[[bytes], None]:
    """Decodes as the service does, in a process of its own."""
    from g2vlm.inputs.frame_choice import FrameChoice
    from g2vlm.server.guard.decoding import DecodingPool
    from g2vlm.server.guard.limits import MIB, Limits

    limits = Limits(
        decoding_workers=1, decoding_seconds=10.0, decoding_bytes=1024 * MIB, image_pixels=2_000_000
    )
    pool = DecodingPool(limits)
    atexit.register(pool.close)

    def read(content: bytes) -> None:
        pool.decode([content], keep=None, frames=FrameChoice(count=3 if is_video else 2))

    return read


def sniffing_reader() -> Callable[[bytes], None]:
    """Tells formats, and takes data URLs apart."""
    import base64

    from g2vlm.server.guard.data_urls import parse_data_url
    from g2vlm.server.guard.refusals import RefusedError
    from g2vlm.server.guard.sniffing import sniff

    def read(content: bytes) -> None:
        url = "data:image/png;base64," + base64.b64encode(content).decode()
        broken = bytes(url, "ascii").replace(b"=", content[:1])
        for text in (url, broken.decode("latin-1"), content.decode("latin-1")):
            with contextlib.suppress(RefusedError):
                parse_data_url(text, 1 << 20)
        sniff(content)

    return read


def safetensors_reader() -> Callable[[bytes], None]:
    """Opens the weights of a checkpoint."""
    from g2vlm.checkpoints.loading import Weights

    folder = temporary_folder()

    def read(content: bytes) -> None:
        (folder / "model.safetensors").write_bytes(content)
        weights = Weights.open(folder)
        for key in weights.shapes:
            weights.tensor(key)

    return read


def npz_reader() -> Callable[[bytes], None]:
    """Reads a stored scene."""
    from g2vlm.scene.storage import read_npz

    path = temporary_folder() / "scene.npz"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        read_npz(path)

    return read


def json_reader() -> Callable[[bytes], None]:
    """Reads the body of a request, and the request in it."""
    from pydantic import ValidationError
    from starlette.exceptions import HTTPException

    from g2vlm.server.chat.schemas import ChatRequest
    from g2vlm.server.web.json_body import MOST_DEPTH, parsed

    def read(content: bytes) -> None:
        try:
            ChatRequest.model_validate(parsed(content, MOST_DEPTH))
        except (HTTPException, ValidationError, json.JSONDecodeError) as error:
            raise InputError("refused, as the service does") from error

    return read


KINDS: dict[str, tuple[Callable[[], list[bytes]], Callable[[], Callable[[bytes], None]]]] = {
    "image": (image_seeds, lambda: decoding_reader(False)),
    "video": (video_seeds, lambda: decoding_reader(True)),
    "sniff": (lambda: image_seeds() + video_seeds(), sniffing_reader),
    "safetensors": (safetensors_seeds, safetensors_reader),
    "npz": (npz_seeds, npz_reader),
    "json": (json_seeds, json_reader),
}


def try_chunk(kind: str, first: int, count: int, seed: int, keep: Path) -> Counter[str]:
    """Try some inputs of a kind; what became of them."""
    from g2vlm.server.guard.decoding_worker import WorkerDiedError

    make_seeds, make_reader = KINDS[kind]
    seeds, read = make_seeds(), make_reader()
    outcomes: Counter[str] = Counter()
    for number in range(first, first + count):
        generator = random.Random(f"{seed} {kind} {number}")
        content = mutated(generator.choice(seeds), generator)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(content)
            outcomes["read"] += 1
        except WorkerDiedError:
            outcomes["processes_lost"] += 1
        except G2VLMError:
            outcomes["refused"] += 1
        except Exception as error:  # noqa: BLE001  finding these is what this is for
            outcomes["crashed"] += 1
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{kind}-{number}").write_bytes(content)
            print(f"{kind} {number}: {type(error).__name__}: {error}", file=sys.stderr)
    return outcomes


def run_chunk(kind: str, first: int, count: int, options: argparse.Namespace) -> Counter[str]:
    """Try some inputs in a process of its own, whose death is a crash too."""
    words = [str(word) for word in (kind, first, count)]
    command = [sys.executable, __file__, "--chunk", *words, "--seed", str(options.seed)]
    done = subprocess.run([*command, "--keep", str(options.keep)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"{kind} {first} to {first + count}: ended with {done.returncode}", file=sys.stderr)
        return Counter(crashed=1)
    return Counter(json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """Try as many inputs as asked, less those of the state; counts as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--state", type=Path, help="file with the counts so far; made if there is none")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-crashes"), help="folder for what crashed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunk", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.chunk is not None:
        kind, first, count = options.chunk
        print(json.dumps(try_chunk(kind, int(first), int(count), options.seed, options.keep)))
        return 0
    state: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    if options.state is not None and options.state.exists():
        state = {kind: Counter(counts) for kind, counts in json.loads(options.state.read_text()).items()}
    started_s = time.perf_counter()
    for kind, share in SHARES.items():
        wanted = round(options.inputs * share)
        while (tried := state[kind]["tried"]) < wanted:
            count = min(CHUNK, wanted - tried)
            state[kind] += run_chunk(kind, tried, count, options)
            state[kind]["tried"] += count
            if options.state is not None:
                options.state.parent.mkdir(parents=True, exist_ok=True)
                temporary = options.state.with_suffix(".new")
                temporary.write_text(json.dumps(state))
                os.replace(temporary, options.state)
    result = {
        **{key: sum(counts[key] for counts in state.values()) for key in _TOTALS},
        "seconds": round(time.perf_counter() - started_s, 1),
        "by_kind": state,
    }
    print(json.dumps(result))
    return 1 if result["crashed"] else 0


if __name__ == "__main__":
    sys.exit(main())
