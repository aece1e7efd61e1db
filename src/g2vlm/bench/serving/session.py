"""One run of `g2vlm bench serve`, from plan to report."""

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import g2vlm
from g2vlm.bench.machine import describe_machine
from g2vlm.bench.serving.crowd import measure_crowd
from g2vlm.bench.serving.kills import measure_kills
from g2vlm.bench.serving.process import example_photos, running
from g2vlm.bench.serving.questions import measure_questions, questions

PARTS = ("questions", "crowd", "kills")


@dataclass(frozen=True)
class ServingPlan:
    """What is measured."""

    checkpoint: str
    dtype: str
    """In bfloat16 answers may differ by how many are written at once; in float32 they are the same."""
    parts: tuple[str, ...]
    repeats: int
    """Rounds of the questions."""
    num_clients: int
    seconds: float
    """Of the crowd."""
    num_kills: int


def measure_serving(plan: ServingPlan, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure what the plan asks for.

    Returns:
        A JSON object: `machine`, and the parts.

    Raises:
        InputError: the service does not start, or there are no example images.
        MissingExtraError: psutil is not installed.
    """
    photos = example_photos()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = g2vlm.load(plan.checkpoint, dtype=plan.dtype)
        machine = describe_machine(model.placement.device)
        precision = model.placement.precision.value
        report: dict[str, Any] = {
            "checkpoint": plan.checkpoint,
            "dtype": precision,
            "machine": asdict(machine),
        }
        options = ("--dtype", plan.dtype)
        if "questions" in plan.parts:
            say("questions about one scene, each way by turns")
            with running(plan.checkpoint, *options) as service:
                report["questions"] = asdict(measure_questions(service, model, photos, plan.repeats))
        if "crowd" in plan.parts:
            say(f"{plan.num_clients} clients for {plan.seconds:.0f} s")
            with running(plan.checkpoint, *options) as service:
                crowd = (plan.num_clients, plan.seconds)
                found = measure_crowd(service, model, photos, questions(), crowd)
            report["crowd"] = {
                "answers": len(found.seconds),
                "statuses": {str(status): number for status, number in sorted(found.statuses.items())},
                "left": found.num_left,
                "wrong": found.num_wrong,
                "accepted_nonsense": found.num_accepted_nonsense,
                **{f"p{percent}_s": found.percentile(percent) for percent in (50, 95, 99)},
                "memory_mb": found.memory[-1][1] if found.memory else None,
                "memory_mb_per_minute": found.memory_slope(),
            }
        if "kills" in plan.parts:
            say(f"{plan.num_kills} kills")
            kills = measure_kills((plan.checkpoint, *options), model, photos[:2], plan.num_kills, say)
            report["kills"] = asdict(kills)
    return report


def table(report: dict[str, Any]) -> str:
    """A report as a Markdown table."""
    machine = report["machine"]
    rows = [
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_per_core']:.1f} a core",
        "",
    ]
    rows += ["| | |", "|---|---|"]
    if found := report.get("questions"):
        ratios = {
            "beside one after the other": found["concurrent"] / found["sequential"],
            "beside ask_many offline": found["concurrent"] / found["offline"],
            "beside everything recomputed": found["concurrent"] / found["recomputed"],
        }
        rows.append(f"| 16 questions at once | {found['concurrent']:.1f} a second |")
        rows += [f"| {name} | {ratio:.2f} x |" for name, ratio in ratios.items()]
        rows.append(f"| answers that differ from the offline ones | {found['num_different']} |")
    if found := report.get("crowd"):
        bad = sum(number for status, number in found["statuses"].items() if int(status) >= 500)
        rows += [
            f"| answers; by status | {found['answers']}; {found['statuses']} |",
            f"| wrong; 5xx; nonsense accepted | {found['wrong']}; {bad}; {found['accepted_nonsense']} |",
            f"| p50, p95, p99 | {found['p50_s']:.2f}, {found['p95_s']:.2f}, {found['p99_s']:.2f} s |",
            f"| memory | {found['memory_mb']:.0f} MB, {found['memory_mb_per_minute']:+.2f} MB a minute |",
        ]
    if found := report.get("kills"):
        rows += [
            f"| kills, scenes | {found['num_kills']}, {found['num_scenes']} |",
            f"| lost; damaged | {found['num_lost']}; {found['num_damaged']} |",
            f"| start after a kill; anew | {found['starting_s']:.1f}; {found['empty_start_s']:.1f} s |",
        ]
    return "\n".join(rows)
