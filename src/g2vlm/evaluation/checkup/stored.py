"""The files of a checkpoint: digests, and numbers that no trained network holds."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from g2vlm.checkpoints.loading import Weights, open_checkpoint
from g2vlm.evaluation.checkup.rows import Group, Row

SUMS = "SHA256SUMS"
"""File of digests beside the weights, as `sha256sum` writes it."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 24
_LEAST_BITS = 8
"""Significant bits of bfloat16, the coarsest format in which weights are kept without damage."""
_SAMPLE = 4096
"""Numbers of each tensor from which its format and its identity are told."""
_UNLIKE = 30.0
"""How many times larger or smaller than in other layers a matrix must be to be called foreign."""
_VOCABULARY = ("embed_tokens.", "lm_head.")
"""Matrices with a row for each token, some of which no text uses."""

Progress = Callable[[str], None]


def digest_rows(folder: Path, weights: Weights) -> Iterator[Row]:
    """Compare the SHA-256 of every file of weights with what the hub or a list beside it says."""
    for path in sorted({weights.path, *_shards(weights.path)}):
        if path.suffix != ".safetensors":
            continue
        found, wanted = sha256_of(path), announced_digest(path)
        expected = (
            f"{wanted[0]} ({wanted[1]})" if wanted else "not known: compare it with the page of the hub"
        )
        yield Row(
            Group.FILE,
            f"SHA-256 of {path.name}",
            None if wanted is None else found == wanted[0],
            found,
            expected,
            "another digest: damaged, cut off or changed",
        )


def sha256_of(path: Path) -> str:
    """Digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def announced_digest(path: Path) -> tuple[str, str] | None:
    """The digest that a file should have and who says so; None where nobody does."""
    sums = path.parent / SUMS
    if sums.is_file():
        for line in sums.read_text(encoding="utf-8").splitlines():
            digest, _, name = line.partition(" ")
            if name.lstrip(" *") == path.name and _SHA256.fullmatch(digest):
                return digest, SUMS
    # The hub's cache names large files after their content.
    if _SHA256.fullmatch(path.resolve().name):
        return path.resolve().name, "the hub's cache"
    noted = path.parent / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
    if noted.is_file():
        for line in noted.read_text(encoding="utf-8").splitlines():
            if _SHA256.fullmatch(line.strip()):
                return line.strip(), "noted at the download"
    return None


def _shards(index: Path) -> list[Path]:
    if index.suffix != ".json":
        return []
    names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [index.parent / name for name in names]


@dataclass
class _Findings:
    """What is wrong with the numbers of a file, as keys."""

    infinite: list[str] = field(default_factory=list)
    empty_rows: list[str] = field(default_factory=list)
    coarse: list[str] = field(default_factory=list)
    twins: list[str] = field(default_factory=list)
    spread: dict[str, dict[str, float]] = field(default_factory=dict)
    """Standard deviation of each matrix, by its kind: its name without the number of its layer."""
    least_bits: int = 64


def number_rows(folder: Path, on_step: Progress = lambda text: None) -> Iterator[Row]:
    """Read every number once: finite, no empty rows, no coarse format, no matrix twice, none foreign."""
    weights, _ = open_checkpoint(folder)
    found, seen = _Findings(), dict[bytes, str]()
    for count, key in enumerate(sorted(weights.shapes)):
        if count % 50 == 0:
            on_step(f"numbers of {count} of {len(weights.shapes)} tensors")
        _look_at(key, weights.tensor(key), found, seen)
    yield _listing(
        "tensors with numbers that are not finite",
        found.infinite,
        "NaN or infinity: damaged, or converted through float16",
    )
    yield _listing("rows without numbers", found.empty_rows, "zeros where a tensor was cut off")
    yield Row(
        Group.FILE,
        "significant bits",
        not found.coarse,
        f"{found.least_bits} or more" if not found.coarse else _shortened(found.coarse),
        f"{_LEAST_BITS} (bfloat16) or more in every tensor",
        "4 or fewer: quantized on the way (fp8, int4)",
    )
    yield _listing("matrices that are there twice", found.twins, "one layer's weights in another's place")
    yield _listing(
        "matrices unlike those of other layers", _foreign(found.spread), "a drawn or foreign tensor"
    )


def _look_at(key: str, stored: Tensor, found: _Findings, seen: dict[bytes, str]) -> None:
    values = stored.float()
    if values.ndim < 2 or len(values) == 1:
        if not bool(torch.isfinite(values).all()):
            found.infinite.append(key)
        return
    rows = values.flatten(1).abs().sum(dim=1)
    # A sum is finite only if all that was added is, but for sums beyond float32, which no weights reach.
    if not bool(torch.isfinite(rows).all()):
        found.infinite.append(key)
        return
    empty = int((rows == 0).sum())
    spare = len(rows) // 20 if any(name in key for name in _VOCABULARY) else 0
    if empty > spare:
        found.empty_rows.append(f"{key} ({empty} of {len(rows)})")
    sample = values.flatten()[:_SAMPLE]
    bits = significant_bits(sample)
    found.least_bits = min(found.least_bits, bits)
    if bits < _LEAST_BITS:
        found.coarse.append(f"{key} ({bits})")
    identity = hashlib.sha256(sample.numpy().tobytes()).digest()
    if bool(sample.any()) and identity in seen:
        found.twins.append(f"{key} = {seen[identity]}")
    seen[identity] = key
    kind = re.sub(r"\.\d+\.", ".*.", key)
    found.spread.setdefault(kind, {})[key] = float(rows.mean()) / values[0].numel()


def significant_bits(values: Tensor) -> int:
    """Bits that the most detailed of some float32 numbers needs, the leading one counted: 8 for bfloat16."""
    mantissa = values.contiguous().view(torch.int32) & 0x7FFFFF
    if not bool(mantissa.any()):
        return 1
    # The lowest bit that any of them uses.
    together = int(np.bitwise_or.reduce(mantissa.numpy()))
    return 24 - ((together & -together).bit_length() - 1)


def _foreign(spread: dict[str, dict[str, float]]) -> list[str]:
    foreign = []
    for members in spread.values():
        middle = median(members.values())
        for key, value in members.items():
            if len(members) > 2 and not middle / _UNLIKE < value < middle * _UNLIKE:
                foreign.append(f"{key} ({value / max(middle, 1e-30):.2g} times the others)")
    return foreign


def _listing(subject: str, keys: list[str], broken: str) -> Row:
    return Row(Group.FILE, subject, not keys, _shortened(keys) or "none", "none", broken)


def _shortened(keys: list[str], most: int = 3) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
