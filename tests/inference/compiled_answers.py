"""Prints what plain and compiled passes choose.

A program of its own, because annotations that are checked cannot be traced.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch._dynamo.testing import CompileCounter

import g2vlm
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.inference.decoding import CompiledDecoder, Decoder, Decoding
from g2vlm.inference.perception import Perception

QUESTIONS = ("How far is the chair?", "Which of the two tables is nearer?")


def answers(perception: Perception) -> list[tuple[int, ...]]:
    """Of one question by itself, and of both side by side."""
    found = [
        perception.ask(QUESTIONS[0], max_new_tokens=12),
        *perception.ask_many(QUESTIONS, max_new_tokens=12),
    ]
    return [answer.token_ids for answer in found]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    model = g2vlm.load(random_checkpoint(folder), device="cpu", dtype="float32", compiled=False)
    counter, rng = CompileCounter(), np.random.default_rng(0)
    photos = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(4)]
    model.decoding = Decoding.GRAPH  # for the memory that its passes need
    perceptions = [model.perceive(photos[:count]) for count in (1, 2, 3, 4)]
    # The first perception has loaded what writes.
    decoders = Decoder(model.network), CompiledDecoder(model.network, backend=counter)
    rows = []
    for perception in perceptions:
        for decoder in decoders:
            perception._decoder = decoder
            rows.append(answers(perception))
    print(json.dumps({"plain": rows[::2], "compiled": rows[1::2], "graphs": counter.frame_count}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
