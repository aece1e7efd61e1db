"""`g2vlm train`: run a recipe, in slices if need be, on one process or many."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from g2vlm.cli.shared.terminal import reserved_stdout, say, write_json
from g2vlm.errors import InputError
from g2vlm.scene.writing import check_folder

if TYPE_CHECKING:
    from g2vlm.training.recipes.recipe import Recipe

EXIT_INTERRUPTED = 130
NAMES = (
    "tiny-geometry, photo-geometry, photo-language, tiny-joint, tiny-sr, tiny-vg-ce, "
    "released-stage1, released-stage1-518, paper-stage1, joint-2b, sr-2b, vg-ce-2b, lora-2b"
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train a model by a recipe.

    A run keeps everything in its folder: states to continue from, log.jsonl, tensorboard files, and the model
    as  g2vlm recon --ckpt FOLDER/model  reads it. The same command continues an unfinished run. Start several
    processes with  torchrun --nproc_per_node N -m g2vlm train RECIPE.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input": (
            "recipe",
            "init_from",
            "data",
            "questions",
            "images",
            "rooms_share",
            "held_out",
        ),
        "output": (
            "folder",
            "plan",
            "json",
        ),
        "running": (
            "device",
            "max_minutes",
            "save_minutes",
            "override",
            "workers",
            "threads",
            "store",
            "compile",
        ),
        "expert": (
            "steps",
            "learning_rate",
            "tokens",
            "accumulate",
            "seed",
            "processes",
        ),
    }
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "g2vlm train tiny-geometry --plan",
        "g2vlm train tiny-geometry --folder runs/first --max_minutes 30",
        "torchrun --nproc_per_node 8 -m g2vlm train released-stage1",
    )

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE", help=f"One of {NAMES}.")]
    """Name of a recipe."""
    folder: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the run; runs/RECIPE without it."""
    init_from: Annotated[str | None, tyro.conf.arg(metavar="CKPT")] = None
    """Checkpoint to start from instead of the recipe's own: a folder, a bundled name or a hub id; or public
    towers, dinov2=FOLDER,qwen2vl=FOLDER, which are put together in the folder of the run as g2vlm assemble
    does."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="MIXTURE.yaml")] = None
    """Learn from this mixture of prepared frames, rooms and questions instead of the recipe's own data."""
    questions: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Learn from this file of LLaVA-style JSON lines instead of the synthetic world."""
    images: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """What image paths in the question file are relative to; the file's folder without it."""
    rooms_share: float | None = None
    """With --questions: share of the steps that go on learning from rendered rooms; without it 0.5 where the
    recipe learns geometry, else 0."""
    held_out: float | None = None
    """With --questions: share of its images that is not learned but validated; 0.02 without it."""
    steps: int | None = None
    """Optimisation steps of the whole run; the schedule is stretched to them."""
    learning_rate: float | None = None
    """Peak of the learning rate."""
    tokens: int | None = None
    """Budget of image tokens of a micro-batch."""
    accumulate: int | None = None
    """Micro-batches of a step, over all processes."""
    seed: int | None = None
    """Seed of weights, data and augmentation."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    workers: int = 1
    """Processes that make batches."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """CPU threads of the network; without it, one for each core that makes no batches, shared out among the
    processes of this machine."""
    max_minutes: float | None = None
    """Save and stop after so long; the same command continues."""
    save_minutes: float = 10.0
    """Save at least this often, so that little is lost however the run ends."""
    override: bool = False
    """Continue a run although its recipe, data, first weights or versions have changed since it began."""
    store: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Keep rendered pictures of rooms that return here, so that they are rendered once."""
    watch: Annotated[Path | None, tyro.conf.arg(metavar="FRAMES")] = None
    """Real frames with depth and poses (folders with frames.json) to measure at every validation."""
    compile: bool = False
    """Compile the layers: slow to start, faster afterwards."""
    plan: bool = False
    """Only say what the recipe changes and how much memory it needs."""
    processes: int = 1
    """With --plan: number of processes that share weights, gradients and optimizer."""
    json: bool = False
    """With --plan: print one JSON object."""


def run(options: Options) -> int:
    """Plan, or train."""
    recipe = _adjusted(options)
    return _plan(recipe, options) if options.plan else _train(recipe, options)


def _adjusted(options: Options) -> "Recipe":
    """The recipe with the values given on the command line."""
    from g2vlm.training.recipes.catalogue import recipe_named
    from g2vlm.training.recipes.recipe import FromCheckpoint
    from g2vlm.training.run.assembling import Towers

    if options.images is not None and options.questions is None:
        raise InputError("Expected --questions FILE beside --images: they say where its images are.")
    recipe = recipe_named(options.recipe)
    before, sizes = recipe.optimisation, recipe.batching
    optimisation = dataclasses.replace(
        before,
        steps=before.steps if options.steps is None else options.steps,
        learning_rate=before.learning_rate if options.learning_rate is None else options.learning_rate,
    )
    batching = dataclasses.replace(
        sizes,
        tokens=sizes.tokens if options.tokens is None else options.tokens,
        accumulate=sizes.accumulate if options.accumulate is None else options.accumulate,
    )
    recipe = dataclasses.replace(recipe, optimisation=optimisation, batching=batching)
    if options.seed is not None:
        recipe = dataclasses.replace(recipe, seed=options.seed)
    if options.init_from is not None and Towers.parse(options.init_from) is None:
        recipe = dataclasses.replace(recipe, start=FromCheckpoint(options.init_from))
    return _with_mixture(recipe, options) if options.data is not None else _with_questions(recipe, options)


def _with_mixture(recipe: "Recipe", options: Options) -> "Recipe":
    """The recipe with the data of a mixture file."""
    from g2vlm.training.recipes.mixture_file import read_mixture

    assert options.data is not None
    if options.questions is not None:
        raise InputError("Expected --data or --questions: a mixture file names question files itself.")
    read = read_mixture(options.data, recipe)
    for place in read.skipped:
        say(f"left out of the mixture: {place} is not there")
    return dataclasses.replace(recipe, data=read.mixture)


def _with_questions(recipe: "Recipe", options: Options) -> "Recipe":
    """The recipe with the data given on the command line."""
    from g2vlm.training.recipes.recipe import Mixture, MixturePart, QuestionFileData

    if options.questions is None:
        if options.rooms_share is not None or options.held_out is not None:
            raise InputError("Expected --questions FILE beside --rooms_share or --held_out.")
        return recipe
    rooms = options.rooms_share
    if rooms is None:
        rooms = 0.5 if recipe.stage.has_geometry else 0.0
    if not 0 <= rooms < 1 or not 0 <= (options.held_out or 0.0) < 1:
        raise InputError(
            f"Expected shares from 0 to below 1, got --rooms_share {rooms} and --held_out {options.held_out}."
        )
    questions = QuestionFileData(options.questions, options.images)
    if options.held_out is not None:
        questions = dataclasses.replace(questions, held_out=options.held_out)
    if not rooms:
        return dataclasses.replace(recipe, data=questions)
    say(
        f"{1 - rooms:.0%} of the steps learn answers from {options.questions}, {rooms:.0%} learn from "
        "rendered rooms: a question file says nothing about points and cameras."
    )
    assert not isinstance(recipe.data, Mixture)
    parts = (MixturePart(questions, 1 - rooms), MixturePart(recipe.data, rooms))
    return dataclasses.replace(recipe, data=Mixture(parts))


def _plan(recipe: "Recipe", options: Options) -> int:
    from g2vlm.training.run.memory import plan_memory

    with reserved_stdout() as out:
        plan = plan_memory(recipe, options.processes)
        if options.json:
            write_json(out, {"recipe": recipe.name, **dataclasses.asdict(plan), "total": plan.total})
            return 0
        groups = ", ".join(sorted(group.value for group in recipe.trained))
        out.write(f"{recipe.name}: stage {recipe.stage.value}; trains {groups}\n")
        for name, value in plan.rows():
            out.write(f"  {name:<40} {value}\n")
    return 0


def _with_towers(recipe: "Recipe", options: Options, folder: Path) -> "Recipe":
    """The recipe started from the towers given on the command line, which the first process puts together."""
    from g2vlm.training.recipes.recipe import FromCheckpoint
    from g2vlm.training.run.assembling import Towers, assembled_start
    from g2vlm.training.run.distributed import on_first

    towers = None if options.init_from is None else Towers.parse(options.init_from)
    if towers is None:
        return recipe
    start = on_first(lambda: str(assembled_start(towers, folder, recipe.seed)))
    return dataclasses.replace(recipe, start=FromCheckpoint(start))


def _train(recipe: "Recipe", options: Options) -> int:
    import torch

    from g2vlm.model.precision import choose_placement
    from g2vlm.training.run.distributed import joined_processes
    from g2vlm.training.run.trainer import Ending, Runtime, Trainer

    device = choose_placement(options.device, "float32").device
    folder = check_folder(options.folder or Path("runs") / recipe.name)
    if options.store is not None:
        check_folder(options.store)
    with joined_processes(device) as processes:
        torch.set_num_threads(options.threads or processes.own_threads(options.workers))
        if device.type == "cuda":
            device = torch.device("cuda", processes.local_rank)
        recipe = _with_towers(recipe, options, folder)
        runtime = Runtime(
            folder=folder,
            device=device,
            workers=options.workers,
            max_minutes=options.max_minutes,
            save_minutes=options.save_minutes,
            override=options.override,
            store=options.store,
            watch=options.watch,
            compiled=options.compile,
            processes=processes,
        )
        ending = Trainer(recipe, runtime).run()
        if processes.is_first:
            say(f"{ending.value}: {folder}")
    return EXIT_INTERRUPTED if ending is Ending.INTERRUPTED else 0
