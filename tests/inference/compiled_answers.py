"""Prints what plain and compiled passes choose, also in other threads than the one that compiled.

A program of its own, because annotations that are checked cannot be traced.
"""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

import g2vlm
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.inference.decoding import CompiledDecoder, Decoder
from g2vlm.inference.perception import Perception

QUESTIONS = ("How far is the chair?", "Which of the two tables is nearer?")
LARGE = 2000
"""Numbers of a tensor that must not be copied for every pass."""


class Backend:
    """Runs graphs as they are, and records what would go wrong on a GPU."""

    def __init__(self) -> None:
        self.graphs = 0
        self.threads: set[int] = set()
        self.copied: list[str] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        self.graphs += 1
        for node in graph.graph.find_nodes(op="placeholder"):
            value = node.meta.get("example_value")
            if not isinstance(value, torch.Tensor) or isinstance(value, torch.nn.Parameter):
                continue
            if value.numel() > LARGE and "_dynamo_static_input_type" not in node.meta.get("tensor_dict", {}):
                self.copied.append(node.name)

        def run(*given: Any) -> Any:
            # Recorded CUDA graphs belong to the thread that recorded them.
            self.threads.add(threading.get_ident())
            return graph.forward(*given)

        return run


def answers(perception: Perception, decoder: Decoder) -> list[tuple[int, ...]]:
    """Of one question by itself, of both side by side, and of one that follows a remembered one."""
    perception._decoder = decoder
    found = [
        perception.ask(QUESTIONS[0], max_new_tokens=12, remember=True),
        perception.ask(QUESTIONS[1], max_new_tokens=12),
    ]
    perception.forget()
    found += perception.ask_many(QUESTIONS, max_new_tokens=12)
    return [answer.token_ids for answer in found]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    model = g2vlm.load(random_checkpoint(folder), device="cpu", dtype="float32", compiled=False)
    backend, rng = Backend(), np.random.default_rng(0)
    photos = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(4)]
    perceptions = [model.perceive(photos[:count]) for count in (1, 2, 3, 4)]
    # The first perception has loaded what decodes.
    plain, compiled = Decoder(model.network), CompiledDecoder(model.network, backend=backend)
    expected = [answers(perception, plain) for perception in perceptions]
    found = [answers(perception, compiled) for perception in perceptions]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda one: answers(one, compiled), perceptions))
    result = {
        "plain": expected,
        "compiled": found,
        "from_threads": again,
        "graphs": backend.graphs,
        "threads": len(backend.threads),
        "own_thread": threading.get_ident() in backend.threads,
        "copied": backend.copied,
        "caches": len(compiled._free),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
