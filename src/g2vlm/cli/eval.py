"""`g2vlm eval`: measure a checkpoint on a benchmark, or put results side by side."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import torch
import tyro

from g2vlm.cli.shared.terminal import Countdown, leave_to_download, reserved_stdout, say, write_json
from g2vlm.data.questions.phrasing.rephrasing import Phrasing
from g2vlm.data.splits import Split
from g2vlm.data.world.config import World
from g2vlm.errors import InputError
from g2vlm.evaluation.asking import Sight
from g2vlm.evaluation.plots import write_plots
from g2vlm.evaluation.predictors.baselines import chosen_baselines, usual_baselines
from g2vlm.evaluation.predictors.interface import Reconstructor
from g2vlm.evaluation.records import read_records
from g2vlm.evaluation.registry import BENCHMARKS, Request, build_benchmark, find_entry
from g2vlm.evaluation.report import format_report, format_result
from g2vlm.evaluation.results import CheckpointIdentity, Figure, fingerprint, read_result
from g2vlm.evaluation.runner import RunOptions
from g2vlm.evaluation.seen import read_training_record, refuse_seen, seen_scenes
from g2vlm.evaluation.session import RESULTS, Outcome, SessionOptions, Subject, evaluate
from g2vlm.evaluation.shares import Share
from g2vlm.evaluation.summary import differences
from g2vlm.model.config import ViewAttention
from g2vlm.scene.writing import check_file, check_folder

if TYPE_CHECKING:
    from g2vlm.evaluation.trials import Benchmark
    from g2vlm.pipeline import Model

EnumT = TypeVar("EnumT", bound=Enum)


class What(Enum):
    """The halves of an evaluation."""

    GEOMETRY = "geometry"
    QUESTIONS = "questions"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure a checkpoint, or put stored results side by side.

    Finished scenes are kept in a journal: the same command after an interruption goes on where it stopped.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input": (
            "benchmark",
            "data_path",
            "what",
            "num_scenes",
            "num_views",
            "seed",
            "own_groups",
            "baselines",
        ),
        "model": (
            "ckpt",
            "download",
            "device",
            "dtype",
            "max_new_tokens",
            "predictor",
            "allow_seen",
        ),
        "output": (
            "save_path",
            "json",
            "report",
            "plots",
            "keep_predictions",
            "rescore",
            "shard",
        ),
        "synthetic benchmark": (
            "first_seed",
            "num_questions",
            "reasoned",
            "num_missing",
            "phrasing",
            "other_ways",
            "world",
            "allow_train_seeds",
        ),
        "expert": (
            "sights",
            "width",
            "view_attention",
        ),
    }
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "g2vlm eval list",
        "g2vlm eval synthetic --num_scenes 20",
        "g2vlm eval --report first.json second.json",
    )

    benchmark: tyro.conf.Positional[Annotated[str | None, tyro.conf.arg(metavar="BENCHMARK")]] = None
    """synthetic, or one that needs --data_path; `g2vlm eval list` describes all."""
    ckpt: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Checkpoint: a folder, a hub id, or g2vlm-tiny. Without it: the released one if it is in the cache, or
    may be downloaded, else the bundled one."""
    download: bool = False
    """Fetch a hub's checkpoint that is not in the cache (the released one has 18 GB). Without it: asked at a
    terminal, refused elsewhere."""
    data_path: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Where the data of the benchmark lies; synthetic needs none."""
    what: str = "geometry,questions"
    """What is measured: geometry, questions, or both with a comma between."""
    sights: str = ",".join(sight.value for sight in Sight)
    """What the model is shown with each question, each in turn: full; no_geometry (without the geometric
    expert's tokens); grey (plain grey photos); text_only (no photos)."""
    first_seed: int = Split.TEST.value[0]
    """Synthetic: seed of the first scene."""
    num_scenes: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Scenes; synthetic 200, frames 16 groups of each set, others all."""
    num_views: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Views of each scene; synthetic and frames 4, others as their protocol says."""
    seed: int = 0
    """Of what a benchmark draws: groups of frames, views of a sequence."""
    own_groups: bool = True
    """frames: take the groups that a set lists itself. Without: choose new ones by overlap."""
    baselines: Annotated[str | None, tyro.conf.arg(metavar="NAMES")] = None
    """Simpler methods on the same photos, with commas between: nothing, sift, colmap; or none. Without it:
    frames all that are installed, others none."""
    num_questions: int = 8
    """Synthetic: questions about each scene."""
    reasoned: bool = True
    """Synthetic: ask the model to state what it measures before it answers."""
    num_missing: int = 0
    """Synthetic: questions about each scene that speak of what is not there."""
    phrasing: Phrasing = Phrasing.STANDARD
    """Synthetic: the benchmark's own words, free ones as in training, or words that no training uses."""
    other_ways: bool = True
    """Synthetic: ask with full sight also without the request to reason, and in words of no training."""
    world: World = World.FULL
    """Synthetic: full variation, or the easy part of the curriculum."""
    allow_train_seeds: bool = False
    """Synthetic: do not refuse seeds that models are trained on."""
    width: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Image width that the model works at, a multiple of its patches; its own if not given."""
    max_new_tokens: int = RunOptions.max_new_tokens
    """Longest answer, in tokens."""
    device: str = "auto"
    """auto (cuda if there is one, else cpu), cpu, cuda, cuda:1, mps."""
    dtype: str = "auto"
    """auto, bfloat16 or float32."""
    view_attention: Annotated[ViewAttention | None, tyro.conf.arg(metavar="{global,causal}")] = None
    """global or causal; without it: what the checkpoint says."""
    save_path: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """JSON file for the result; the journal lies beside it. Without it: under outputs/eval, named by
    everything the figures depend on."""
    json: bool = False
    """Print the result as one JSON object to stdout instead of tables."""
    predictor: Annotated[str | None, tyro.conf.arg(metavar="WHAT")] = None
    """Measure another method by the same code: saved:FOLDER (predictions in files), transformers:NAME
    (questions), http://HOST/v1#MODEL (questions to an OpenAI-compatible server), vggt, vggt_omega:WEIGHTS,
    pi3, mapanything or depth_anything_3 (if their packages are installed), or nothing, sift, colmap."""
    shard: Annotated[str | None, tyro.conf.arg(metavar="I/N")] = None
    """Measure only the I-th of N shares of the scenes, from 0/N; who ends last writes the result. torchrun
    sets it by itself."""
    keep_predictions: bool = False
    """Write what the model says about geometry beside the result, for --rescore."""
    rescore: bool = False
    """Judge the answers (and kept predictions) of an earlier run again, without asking the model."""
    allow_seen: bool = False
    """Measure also on scenes that the checkpoint's record says it was trained on, and mark the result."""
    plots: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Draw the figures into PNG files of this folder (needs the extra bench)."""
    report: tuple[Path, ...] = ()
    """Measure nothing: print stored results, one in full or several side by side."""

    def chosen(self, text: str, kind: type[EnumT]) -> tuple[EnumT, ...]:
        """Values of an enum from words with commas.

        Raises:
            InputError: an unknown word, or none.
        """
        known = {member.value: member for member in kind}
        words = [word.strip() for word in text.split(",") if word.strip()]
        wrong = [word for word in words if word not in known]
        if wrong or not words:
            got = ", ".join(wrong) or "nothing"
            raise InputError(f"Expected some of {', '.join(map(str, known))} with commas between, got {got}.")
        return tuple(known[word] for word in dict.fromkeys(words))

    def run_options(self) -> RunOptions:
        """What is done with each scene."""
        parts = self.chosen(self.what, What)
        sights = self.chosen(self.sights, Sight) if What.QUESTIONS in parts else ()
        if self.max_new_tokens < 1:
            raise InputError(f"Expected --max_new_tokens of at least 1, got {self.max_new_tokens}.")
        return RunOptions(What.GEOMETRY in parts, sights, self.max_new_tokens, self.chosen_baselines())

    def chosen_baselines(self) -> dict[str, Reconstructor]:
        """Methods beside the model."""
        if self.baselines is not None:
            words = [word.strip() for word in self.baselines.split(",") if word.strip()]
            return {} if words == ["none"] else chosen_baselines(words)
        entry = None if self.benchmark is None else find_entry(self.benchmark)
        usual = () if entry is None else usual_baselines(entry.baselines)
        if entry is not None and len(usual) < len(entry.baselines):
            say("COLMAP is not compared with: pip install 'g2vlm[colmap]'")
        return chosen_baselines(usual)

    def session_options(self) -> SessionOptions:
        """Where results lie, and which share is measured."""
        share = Share.of_launcher() if self.shard is None else Share.parse(self.shard)
        return SessionOptions(self.save_path, share, self.keep_predictions, self.rescore)

    def request(self, width: int, patch: int) -> Request:
        """What is asked of the benchmark."""
        names = {field.name for field in dataclasses.fields(Request)} - {"width", "patch"}
        return Request(width=width, patch=patch, **{name: getattr(self, name) for name in names})


def run(options: Options) -> int:
    """Measure or report."""
    with reserved_stdout() as out:
        if options.report:
            out.write(_report(options.report))
            return 0
        if options.benchmark == "list":
            out.write(_listing())
            return 0
        outcome = _evaluate(options)
        if outcome.result is None:
            say(f"{outcome.remaining} scenes are left to other processes: the last one writes the result")
            return 0
        say(f"result: {outcome.target}")
        out.kept(outcome.target)
        if options.plots is not None:
            say(f"plots: {', '.join(map(str, write_plots(outcome.result, options.plots)))}")
        if options.json:
            write_json(out, outcome.result.to_json())
        else:
            out.write(format_result(outcome.result))
    return 0


def _report(paths: tuple[Path, ...]) -> str:
    """Stored results as tables; of two with journals beside them also the paired differences."""
    results = [read_result(path) for path in paths]
    journals = [path.with_suffix(".jsonl") for path in paths]
    gains: list[Figure] = []
    if len(results) == 2 and results[0].task == results[1].task and all(map(Path.exists, journals)):
        first, second = map(read_records, journals)
        gains = differences(first, second)
    return format_report(results, gains)


def _listing() -> str:
    lines = []
    for name, entry in BENCHMARKS.items():
        lines.append(f"{name}: {entry.summary}")
        if entry.layout:
            lines.append(f"    --data_path: {entry.layout}")
    return "\n".join(lines) + "\n"


def _evaluate(options: Options) -> Outcome:
    if options.benchmark is None:
        raise InputError(f"Expected a benchmark ({', '.join(BENCHMARKS)}) or --report FILES, got neither.")
    doing, session = options.run_options(), options.session_options()
    # Mistakes come out before anything is loaded.
    first = build_benchmark(options.benchmark, options.request(14, 14))
    _check_target(options)
    benchmark = first
    if first.settings.get("num_dropped"):
        say(f"{first.settings['num_dropped']} listed frames are left out: no picture, or no pose")
    if options.predictor is None:
        subject, benchmark = _own(options, doing)
    else:
        subject, doing = _other(options, doing)
    entry = find_entry(options.benchmark)
    try:
        return evaluate(
            benchmark,
            subject,
            doing,
            session,
            entry.published,
            Countdown("scenes"),
            lambda count, path: say(f"{count} scenes are done already: {path}"),
        )
    except KeyboardInterrupt:
        say("\nfinished scenes are kept: the same command goes on from there")
        raise


def _check_target(options: Options) -> None:
    if options.save_path is None:
        check_folder(RESULTS)
        return
    if options.save_path.suffix != ".json":
        raise InputError(f"Expected --save_path to end in .json, got {options.save_path}.")
    check_file(options.save_path)
    check_file(options.save_path.with_suffix(".jsonl"))


def _own(options: Options, doing: RunOptions) -> "tuple[Subject, Benchmark]":
    """A checkpoint, and the benchmark at its width."""
    name, model = _load(options)
    patch = model.config.geometric_encoder.patch_size
    assert options.benchmark is not None
    benchmark = build_benchmark(options.benchmark, options.request(model.config.image_width, patch))
    settings = {
        **_settings(doing),
        "image_width": model.config.image_width,
        "view_attention": model.view_attention.value,
        "dtype": model.placement.precision.value,
    }
    identity = CheckpointIdentity(name, fingerprint(model.folder))
    return Subject(identity, model, settings, _seen(options, benchmark, model.folder)), benchmark


def _seen(options: Options, benchmark: "Benchmark", folder: Path) -> tuple[str, ...]:
    """Scenes that the checkpoint was trained on; refused unless they are allowed."""
    scenes = benchmark.scenes()
    seen = seen_scenes(read_training_record(folder), scenes, getattr(benchmark, "path", None))
    if options.allow_seen:
        if seen:
            say(f"ATTENTION: the checkpoint was trained on {len(seen)} of these {len(scenes)} scenes")
        return tuple(seen)
    refuse_seen(seen, len(scenes))
    return ()


def _other(options: Options, doing: RunOptions) -> tuple[Subject, RunOptions]:
    """Somebody else's method, and the part of what was asked that it can do."""
    from g2vlm.evaluation.predictors.choosing import Choice, choose_predictor
    from g2vlm.evaluation.predictors.interface import Answerer, Reconstructor

    assert options.predictor is not None
    device = "cpu" if options.device == "auto" else options.device
    chosen = choose_predictor(options.predictor, Choice(options.max_new_tokens, device, options.dtype))
    able = (isinstance(chosen.predictor, Reconstructor), isinstance(chosen.predictor, Answerer))
    sights = (Sight.FULL,) if options.sights == Options.sights else doing.sights
    doing = dataclasses.replace(
        doing, geometry=doing.geometry and able[0], sights=sights if doing.sights and able[1] else ()
    )
    if not doing.geometry and not doing.sights:
        raise InputError(f"{options.predictor} cannot do --what {options.what}: leave that out.")
    say(f"predictor: {chosen.identity.name}")
    return Subject(chosen.identity, chosen.predictor, _settings(doing)), doing


def _load(options: Options) -> "tuple[str, Model]":
    import g2vlm
    from g2vlm.checkpoints.hub import choose_checkpoint
    from g2vlm.model.precision import choose_placement

    # Processes that torchrun starts on one machine share out its devices.
    device = options.device
    if device == "auto" and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    placement = choose_placement(device, options.dtype)
    choice = choose_checkpoint(options.ckpt, may_download=leave_to_download(options.download))
    say(f"checkpoint: {choice}")
    say(f"device: {placement.device}, {placement.precision.value}")
    model = g2vlm.load(
        choice.folder, device=device, dtype=options.dtype, view_attention=options.view_attention
    )
    if options.width is not None:
        model.network.config = dataclasses.replace(model.network.config, image_width=options.width)
    # A folder is known by its last part: results travel, paths of this machine need not.
    return Path(choice.name).name if Path(choice.name).exists() else choice.name, model


def _settings(doing: RunOptions) -> dict[str, Any]:
    return {
        "geometry": doing.geometry,
        **({"baselines": list(doing.baselines)} if doing.baselines else {}),
        "sights": [sight.value for sight in doing.sights],
        "max_new_tokens": doing.max_new_tokens,
    }
