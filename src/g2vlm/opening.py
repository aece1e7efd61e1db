"""`g2vlm.load`."""

from pathlib import Path

from g2vlm.model.config import ViewAttention
from g2vlm.model.precision import allow_tf32, choose_placement
from g2vlm.model.quantization import Quantization
from g2vlm.pipeline import Model, Progress


def load(
    checkpoint: str | Path | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    view_attention: ViewAttention | str | None = None,
    quantization: Quantization | str = Quantization.NONE,
    compiled: bool | None = None,
    tf32: bool = False,
    download: bool = False,
    on_progress: Progress | None = None,
) -> Model:
    """Load a checkpoint.

    Args:
        checkpoint: a hub id ("InternRobotics/G2VLM-2B-MoT"), a folder, or the name of the bundled model
            ("g2vlm-tiny"). By default the released model if it is in the hub's cache, else, with a
            `CheckpointWarning`, the bundled one.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto", "bfloat16" or "float32". Geometry heads run in float32 either way; beside bfloat16
            towers on a CPU their large products pass integer planes that hold one part in 32,000.
        view_attention: "global" or "causal"; the checkpoint's own choice by default.
        quantization: "none", or how the language side is stored in fewer bits, which writes answers faster:
            "packed" (two thirds of bfloat16, without loss, on a CPU with AVX-512 VBMI2 and a C compiler),
            "int8", "int4" (less exact). The geometric side keeps its weights.
        compiled: write answers by compiled passes, which is faster: on a CPU in C, for which a C compiler
            must be installed, on a CUDA GPU as one graph, whose first answer takes a while longer. By default
            on a CPU that can, and nowhere else. `Model.decoding` says what was chosen.
        tf32: on CUDA, multiply the float32 of the geometry heads through TF32 (ten bits of mantissa) in this
            whole process: faster, less exact.
        download: fetch a hub's model that is not in the cache; the released one has 18 GB.
        on_progress: called with (tensors read, tensors in all).

    Raises:
        CheckpointError: the checkpoint is missing, incomplete, does not fit, or would have to be downloaded.
        DownloadError: the hub cannot be reached.
        DeviceError: the device or precision (or TF32) is not available, or compiled passes or packed weights
            are not possible there.
    """
    if tf32:
        allow_tf32(choose_placement(device, dtype).device)
    return Model.from_pretrained(
        checkpoint,
        device=device,
        dtype=dtype,
        view_attention=view_attention,
        quantization=quantization,
        compiled=compiled,
        download=download,
        on_progress=on_progress,
    )
