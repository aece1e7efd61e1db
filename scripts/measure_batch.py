"""What shared passes gain for small scenes: seconds per scene with and without, by turns, on this machine.

    python scripts/measure_batch.py --views 1 2 4 --scenes 16

Pixels are random: the time does not depend on them. Prints the smallest of several rounds for each, and
whether the results are equal bit for bit.
"""

import argparse
from time import perf_counter

import torch

import g2vlm
from g2vlm.bench.machine import describe_machine
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inference.together import are_equal, grouped_by_size, reconstruct_together


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ckpt", default="g2vlm-tiny")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--views", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--scenes", type=int, default=16)
    parser.add_argument("--view_budget", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model = g2vlm.load(options.ckpt, dtype=options.dtype)
    prompts = PromptBuilder(model.tokenizer, model.config, model.placement.device)
    machine = describe_machine(model.placement.device)
    print(
        f"{machine.processor}, {machine.threads} threads, {options.dtype}, "
        f"load {machine.load_per_core} per core"
    )
    print("| views | alone, ms a scene | shared, ms a scene | ratio | equal |")
    print("|---|---|---|---|---|")
    side, patch = model.config.image_width, model.config.geometric_encoder.patch_size
    for views in options.views:
        shape = (views, 3, side * 3 // 4 // patch * patch, side)
        scenes = [torch.rand(shape) for _ in range(options.scenes)]
        passes = grouped_by_size([shape] * len(scenes), options.view_budget)

        def predict(groups: list[tuple[int, ...]], scenes: list[torch.Tensor] = scenes) -> list:
            return [
                prediction
                for group in groups
                for prediction in reconstruct_together(
                    model.network, prompts, model.view_attention, [scenes[index] for index in group]
                )
            ]

        ways = {"alone": [(index,) for index in range(len(scenes))], "shared": passes}
        found = {name: predict(groups) for name, groups in ways.items()}
        seconds = dict.fromkeys(ways, float("inf"))
        for _ in range(options.rounds):
            for name, groups in ways.items():
                start = perf_counter()
                predict(groups)
                seconds[name] = min(seconds[name], perf_counter() - start)
        alone, shared = (1000 * seconds[name] / len(scenes) for name in ("alone", "shared"))
        equal = all(map(are_equal, found["alone"], found["shared"]))
        print(f"| {views} | {alone:.1f} | {shared:.1f} | {alone / shared:.2f} | {'yes' if equal else 'no'} |")


if __name__ == "__main__":
    main()
