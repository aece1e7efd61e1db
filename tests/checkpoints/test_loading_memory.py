"""Memory of loading: the weights once, in the precision asked for, and little more."""

import subprocess
import sys
from pathlib import Path

import pytest

from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.model.config import (
    G2VLMConfig,
    GeometricEncoderConfig,
    HeadsConfig,
    MixtureConfig,
    SemanticEncoderConfig,
)

ALLOWANCE_MIB = 40
"""One tensor in the file's precision, the allocator's slack, and what the process needs anyway."""

PROGRAM = """
import sys
from pathlib import Path
import torch
from g2vlm.checkpoints.loading import load_network
from g2vlm.checkpoints.random import random_network
from g2vlm.model.config import g2vlm_test
from g2vlm.model.precision import choose_placement

torch.set_num_threads(int(sys.argv[2]))

def anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024

placement = choose_placement("cpu", "bfloat16")
random_network(g2vlm_test(), placement)  # whatever torch allocates once
before, samples = anonymous(), []
network = load_network(Path(sys.argv[1]), placement, on_progress=lambda *_: samples.append(anonymous()))
weights = sum(p.numel() * p.element_size() for p in network.parameters()) / 2**20
print(max(samples) - before, anonymous() - before, weights)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("threads", [1, 4])
def test_peak_anonymous_memory_is_the_weights_and_little_more(tmp_path: Path, threads: int) -> None:
    config = G2VLMConfig(
        geometric_encoder=GeometricEncoderConfig(num_layers=1, width=64, num_heads=2, mlp_width=64),
        semantic_encoder=SemanticEncoderConfig(num_layers=1, width=64, num_heads=2, mlp_width=64),
        mixture=MixtureConfig(
            vocab_size=4096, width=512, mlp_width=2560, num_layers=7, num_heads=4, num_kv_heads=2
        ),
        heads=HeadsConfig(num_blocks=1, num_heads=4, mlp_width=64, point_width=32, camera_width=32),
    )
    folder = random_checkpoint(tmp_path, config)
    file_mib = (folder / "model.safetensors").stat().st_size / 2**20
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(threads)],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, after, weights = (float(number) for number in done.stdout.split())
    limit = 1.15 * weights + ALLOWANCE_MIB
    # The file must be so large that reading it whole, or a second copy of the weights, breaks the limit.
    assert file_mib > limit + 50
    assert 2 * weights > limit
    assert peak <= limit, f"peak {peak} MiB for {weights:.0f} MiB of weights"
    assert after <= weights + ALLOWANCE_MIB
