"""An outline has the names and shapes of the network, and costs nothing."""

import subprocess
import sys

import torch

from g2vlm.model.config import Part, g2vlm_test
from g2vlm.model.network import G2VLM
from g2vlm.model.outline import outline

PROGRAM = """
import sys
from g2vlm.model.config import g2vlm_test
from g2vlm.model.outline import outline
outline(g2vlm_test())
print("torch._dynamo" in sys.modules)
"""


def test_names_and_shapes_are_those_of_the_network() -> None:
    expected = {name: p.shape for name, p in G2VLM(g2vlm_test()).named_parameters()}
    found = dict(outline(g2vlm_test()).named_parameters())
    assert {name: p.shape for name, p in found.items()} == expected
    assert all(p.is_meta for p in found.values())
    assert {name for name, _ in outline(g2vlm_test()).named_buffers()} == {
        name for name, _ in G2VLM(g2vlm_test()).named_buffers()
    }


def test_only_the_parts_asked_for() -> None:
    network = outline(g2vlm_test(), frozenset({Part.MIXTURE}))
    assert network.parts == {Part.MIXTURE}
    assert network.point_head is None


def test_torch_draws_again_afterwards() -> None:
    outline(g2vlm_test())
    drawn = torch.nn.Linear(3, 3).weight
    assert not drawn.is_meta
    assert torch.isfinite(drawn).all()


def test_the_compiler_of_torch_is_not_imported() -> None:
    """Its import takes longer than reading the weights."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
