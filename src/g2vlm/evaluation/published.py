"""Figures that others have published, to be printed beside ours with their source."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One figure of one method as its source prints it, in our units (shares from 0 to 1)."""

    method: str
    key: str
    """Of the figure it can be compared with."""
    value: float
    source: str
    """Where the number stands."""


def table(
    source: str, keys: tuple[str, ...], rows: dict[str, tuple[float | None, ...]], factor: float = 1.0
) -> tuple[Published, ...]:
    """Figures of several methods from one table.

    Args:
        source: where the table stands.
        keys: of the columns.
        rows: numbers of each method as printed; None where the table has none.
        factor: from the printed unit to ours, 0.01 for percent.
    """
    return tuple(
        Published(method, key, round(value * factor, 6), source)
        for method, values in rows.items()
        for key, value in zip(keys, values, strict=True)
        if value is not None
    )


G2VLM_PAPER = "Hu et al., arXiv 2511.21688, table 1"
"""The paper of the model."""
OMEGA_REPRODUCTION = "facebookresearch/vggt-omega, reproduction.md (September 2026)"
"""Its protocol differs from the paper's in views and resolution; methods are compared among each other."""
SENSENOVA_README = "OpenSenseNova/SenseNova-SI, README (by EASI)"
