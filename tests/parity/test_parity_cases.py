"""The whole network against the public system: every tensor of every case file, every token, every answer."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from g2vlm.checkpoints.loading import load_network
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inputs.geometric import GeometricImages, prepare_geometric
from g2vlm.inputs.photos import load_photos
from g2vlm.inputs.semantic import SemanticPreparation, prepare_semantic
from g2vlm.inputs.text import TextTokenizer
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.config import ViewAttention
from g2vlm.model.network import G2VLM, Wants
from g2vlm.model.precision import choose_placement

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "cases.json").read_text())
SLOW = pytest.mark.slow
STEPS = 24
TOLERANCE = 2e-5
"""Of the largest expected magnitude: ten times tighter than asked, ten times what was seen."""

SHARED = Path(__file__).parents[2].parent / "shared"
"""Photographs and their cases lie beside the repository on some machines; they may not be copied into it."""


@dataclass(frozen=True)
class Case:
    name: str
    photos: list[Path]
    question: str
    expected: dict[str, Tensor]
    token_ids: list[int]


def locate(name: str, computed_images: Path) -> Case:
    entry = CASES[name]
    folder, data = computed_images, DATA
    if name.startswith("photo"):
        data = SHARED / "parity"
        found = sorted((SHARED / "photos").rglob(entry["images"][0]))
        if not found or not (data / f"{name}.safetensors").is_file():
            pytest.skip(f"the photographs of {name} are not beside the repository ({SHARED})")
        folder = found[0].parent
    return Case(
        name,
        [folder / image for image in entry["images"]],
        entry["question"],
        load_file(data / f"{name}.safetensors"),
        entry["token_ids"],
    )


class Recorder:
    """Keeps what a module returned last."""

    def __init__(self, module: nn.Module) -> None:
        self.outputs: list[Tensor] = []
        module.register_forward_hook(lambda _module, _inputs, output: self.outputs.append(output))

    def take(self) -> Tensor:
        result = torch.cat(self.outputs)
        self.outputs.clear()
        return result


def thinned(tokens: Tensor) -> dict[str, Tensor]:
    return {"[::37]": tokens[:, ::37], "[-40:]": tokens[:, -40:]}


def reconstruct(network: G2VLM, prompts: PromptBuilder, images: GeometricImages) -> dict[str, Tensor]:
    encoder = Recorder(network.geometric_encoder)
    prompt = prompts.reconstruction(images.pixels, ViewAttention.GLOBAL)
    outputs = network(prompt.inputs, Wants(geometry=True, global_points=True))
    hidden = outputs.hidden.geometric[0].unflatten(0, (len(images.pixels), -1))
    geometry = outputs.geometry
    found = {
        "recon.images[::9]": images.pixels[None, :, :, ::9, ::9],
        "recon.camera_poses": geometry.T_world_camera,
        "recon.points[::9]": geometry.points_world[:, :, ::9, ::9],
        "recon.local_points[::9]": geometry.points_camera[:, :, ::9, ::9],
        "recon.global_points[::9]": geometry.points_global[:, :, ::9, ::9],
    }
    found |= {f"recon.dino_patch_tokens{key}": value for key, value in thinned(encoder.take()[0]).items()}
    return found | {f"recon.geo_hidden{key}": value for key, value in thinned(hidden).items()}


def chat(network: G2VLM, prompts: PromptBuilder, images: GeometricImages, case: Case) -> dict[str, Tensor]:
    photos = load_photos(case.photos).photos
    encoder = Recorder(network.semantic_encoder)
    prompt = prompts.chat_beginning(
        images.pixels, prepare_semantic(photos, SemanticPreparation()), ViewAttention.GLOBAL
    )
    cache = KeyValueCache(CacheShape.of(network.config.mixture), prompt.inputs.layout.num_tokens + 200)
    network(prompt.inputs, Wants(), cache)
    semantic_tokens = encoder.take().flatten(0, 1)
    step = prompts.text(prompts.question_ids(case.question), prompt.next_position)
    logits = []
    for _ in range(STEPS):
        last = torch.tensor([step.inputs.layout.num_tokens - 1])
        logits.append(network(step.inputs, Wants(logit_slots=last), cache).logits[0, -1])
        step = prompts.text([int(logits[-1].argmax())], step.next_position)
    stacked = torch.stack(logits)
    return {
        "chat.vit_embeds[::27]": semantic_tokens[::27],
        "chat.logits": stacked,
        "chat.token_ids": stacked.argmax(dim=-1),
    }


@dataclass(frozen=True)
class Run:
    case: Case
    found: dict[str, Tensor]


@pytest.fixture(scope="module")
def network(small_checkpoint: Path) -> G2VLM:
    return load_network(small_checkpoint, choose_placement("cpu", "float32"))


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=SLOW if name.startswith("photo") else ()) for name in sorted(CASES)],
)
def run(
    request: pytest.FixtureRequest, small_checkpoint: Path, computed_images: Path, network: G2VLM
) -> Iterator[Run]:
    case = locate(request.param, computed_images)
    prompts = PromptBuilder(TextTokenizer.from_folder(small_checkpoint), network.config, torch.device("cpu"))
    images = prepare_geometric(load_photos(case.photos).photos)
    with torch.inference_mode():
        yield Run(case, reconstruct(network, prompts, images) | chat(network, prompts, images, case))


def assert_close(found: Tensor, expected: Tensor, what: str) -> None:
    assert found.shape == expected.shape, what
    error = float((found.double() - expected.double()).abs().max() / expected.double().abs().max())
    assert error <= TOLERANCE, f"{what}: largest error {error:.2e} of the largest expected magnitude"


def test_every_tensor_equals_the_public_system(run: Run) -> None:
    assert run.found.keys() == run.case.expected.keys()
    for key, expected in run.case.expected.items():
        if expected.is_floating_point():
            assert_close(run.found[key], expected, f"{run.case.name} {key}")


def test_resized_images_equal_the_public_system_bit_for_bit(run: Run) -> None:
    assert torch.equal(run.found["recon.images[::9]"], run.case.expected["recon.images[::9]"])


def test_greedy_token_ids_equal_the_public_system(run: Run) -> None:
    assert run.found["chat.token_ids"].tolist() == run.case.expected["chat.token_ids"].tolist()
    assert run.found["chat.token_ids"].tolist() == run.case.token_ids


def test_rotations_are_rotations(run: Run) -> None:
    rotations = run.found["recon.camera_poses"][0, :, :3, :3]
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3).expand_as(rotations), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(len(rotations)), atol=1e-5)
