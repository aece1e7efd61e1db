"""G2VLM: 3-D reconstruction and spatial question answering with one vision-language model.

    import g2vlm
    model = g2vlm.load("InternRobotics/G2VLM-2B-MoT")
    scene = model.reconstruct("photos/room")
    scene.save("room.ply")
    perception = model.perceive("photos/room")
    print(perception.ask("How far is the chair from me?"))

Names are imported on first use, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PLACES = {
    "load": "g2vlm.opening",
    "Model": "g2vlm.pipeline",
    "Perception": "g2vlm.inference.perception",
    "Answer": "g2vlm.inference.answers",
    "Sampling": "g2vlm.inference.sampling",
    "Scene": "g2vlm.scene.scene",
    "View": "g2vlm.scene.view",
    "Fit": "g2vlm.inputs.geometric",
    "FrameChoice": "g2vlm.inputs.video",
    "FrameChoiceKind": "g2vlm.inputs.video",
    "ViewAttention": "g2vlm.model.config",
    "G2VLMError": "g2vlm.errors",
    "Client": "g2vlm.client.service",
}

__all__ = [
    "Answer",
    "Client",
    "Fit",
    "FrameChoice",
    "FrameChoiceKind",
    "G2VLMError",
    "Model",
    "Perception",
    "Sampling",
    "Scene",
    "View",
    "ViewAttention",
    "load",
]

if TYPE_CHECKING:
    from g2vlm.client.service import Client
    from g2vlm.errors import G2VLMError
    from g2vlm.inference.answers import Answer
    from g2vlm.inference.perception import Perception
    from g2vlm.inference.sampling import Sampling
    from g2vlm.inputs.geometric import Fit
    from g2vlm.inputs.video import FrameChoice, FrameChoiceKind
    from g2vlm.model.config import ViewAttention
    from g2vlm.opening import load
    from g2vlm.pipeline import Model
    from g2vlm.scene.scene import Scene
    from g2vlm.scene.view import View


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'g2vlm' has no attribute {name!r}")
    # Writers of scene formats register themselves when the export room is imported.
    importlib.import_module("g2vlm.export")
    return getattr(importlib.import_module(place), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
