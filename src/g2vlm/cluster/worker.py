"""One process's share of a batch: photos are read ahead, scenes computed, files written behind."""

import json
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from g2vlm.cluster.results import SUMMARY, ResultFolder
from g2vlm.cluster.tasks import SceneTask
from g2vlm.errors import G2VLMError, OutputError
from g2vlm.inference.assembly import assemble_scene
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inference.together import are_equal, grouped_by_size, reconstruct_together
from g2vlm.inputs.geometric import GeometricImages, prepare_geometric
from g2vlm.inputs.photos import PhotoSet, load_photos
from g2vlm.model.network import GeometryPrediction
from g2vlm.pipeline import Model
from g2vlm.scene.formats import FORMATS
from g2vlm.scene.scene import Scene


@dataclass(frozen=True)
class WorkSettings:
    """What every scene of a batch is treated with; plain values, so that other machines get it too."""

    output: str
    """Folder of the results."""
    run: str
    """Name of the run."""
    checkpoint: str
    device: str = "auto"
    dtype: str = "auto"
    formats: tuple[str, ...] = ("npz",)
    """Files of each scene: kinds of `scene.formats`."""
    questions: tuple[str, ...] = ()
    """Asked about every scene, before its own."""
    max_new_tokens: int = 100
    max_views: int | None = None
    view_budget: int = 16
    """Most views of small scenes in one pass; 1 computes each scene by itself."""
    max_attempts: int = 5

    @property
    def results(self) -> ResultFolder:
        """Where scenes go."""
        return ResultFolder(Path(self.output), self.run, self.max_attempts)


@dataclass(frozen=True, eq=False)
class ReadScene:
    """A scene whose photos are in memory."""

    task: SceneTask
    photos: PhotoSet
    images: GeometricImages
    questions: tuple[str, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Views, height and width."""
        views, _, height, width = self.images.pixels.shape
        return views, height, width


class SceneWorker:
    """Holds a model and works through scenes; use it from one thread."""

    def __init__(self, settings: WorkSettings) -> None:
        self.settings, self.results = settings, settings.results
        # Views, height and width for which a common pass was compared with one of each scene's own.
        self._is_equal: dict[tuple[int, ...], bool] = {}

    @cached_property
    def model(self) -> Model:
        """Loaded with the first scene."""
        wish = self.settings
        return Model.from_pretrained(wish.checkpoint, device=wish.device, dtype=wish.dtype)

    def work(self, tasks: Sequence[SceneTask]) -> Iterator[dict[str, Any]]:
        """Finish, fail or skip each of some scenes.

        Reading the next scenes, computing and writing the last ones go on at the same time. What an error of
        one scene ends is that scene. Interrupting takes back the attempts that it cut short.

        Yields:
            The row of each scene, as `ResultFolder.summary`, in the order in which they end.
        """
        if any(self.results.is_open(task.id) for task in tasks):
            _ = self.model  # a checkpoint that cannot be loaded is no scene's fault
        suspects = [task for task in tasks if self.results.is_suspect(task.id)]
        fine = [task for task in tasks if not self.results.is_suspect(task.id)]
        size = max(1, self.settings.view_budget)
        portions = [fine[k : k + size] for k in range(0, len(fine), size)]
        begun: set[str] = set()
        with ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(1, "writer") as writer:
            try:
                ahead = [reader.submit(self._read_all, portions[0], begun)] if portions else []
                for number, portion in enumerate(portions):
                    read = ahead.pop().result()
                    if number + 1 < len(portions):
                        ahead.append(reader.submit(self._read_all, portions[number + 1], begun))
                    yield from self._finish(portion, read, writer, begun)
                # What may kill the process has no company: it begins once all others have ended.
                for suspect in suspects:
                    yield from self._finish([suspect], self._read_all([suspect], begun), writer, begun)
            except KeyboardInterrupt:
                for scene in begun:
                    if not self.results.is_done(scene):
                        self.results.withdraw(scene)
                raise

    def _finish(
        self,
        tasks: Sequence[SceneTask],
        read: Sequence[ReadScene],
        writer: ThreadPoolExecutor,
        begun: set[str],
    ) -> Iterator[dict[str, Any]]:
        """Compute and write what was read of some scenes, and tell how all of them ended."""
        written = [writer.submit(self._write, *computed) for computed in self._compute(read)]
        for future in written:
            future.result()
        for task in tasks:
            begun.discard(task.id)
            yield self.results.summary(task.id)

    def _read_all(self, tasks: Sequence[SceneTask], begun: set[str]) -> list[ReadScene]:
        read = []
        for task in tasks:
            if not self.results.is_open(task.id):
                continue
            self.results.begin(task.id)
            begun.add(task.id)
            try:
                read.append(self._read(task))
            except Exception as error:  # noqa: BLE001  (one scene's trouble is not the batch's)
                self._fail(task, error)
        return read

    def _read(self, task: SceneTask) -> ReadScene:
        questions = (*self.settings.questions, *task.questions)
        keep = self.model.reduction(asking=bool(questions))
        photos = load_photos(task.source, max_views=task.max_views or self.settings.max_views, keep=keep)
        images = prepare_geometric(photos.photos, width=keep.width, patch=keep.patch, fit=keep.fit)
        return ReadScene(task, photos, images, questions)

    def _compute(self, read: Sequence[ReadScene]) -> Iterator[tuple[ReadScene, Scene, list[str], float]]:
        """Scenes with their answers and seconds; those without questions share passes."""
        asked = [scene for scene in read if scene.questions]
        silent = [scene for scene in read if not scene.questions]
        for chosen in grouped_by_size([scene.size for scene in silent], self.settings.view_budget):
            group = [silent[index] for index in chosen]
            start = perf_counter()
            try:
                scenes = self._reconstruct(group)
            except Exception as error:  # noqa: BLE001
                for member in group:
                    self._fail(member.task, error)
                continue
            seconds = (perf_counter() - start) / len(group)
            for member, scene in zip(group, scenes, strict=True):
                yield member, scene, [], seconds
        for member in asked:
            start = perf_counter()
            try:
                perception = self.model.perceive(member.photos)
                answers = perception.ask_many(member.questions, max_new_tokens=self.settings.max_new_tokens)
            except Exception as error:  # noqa: BLE001
                self._fail(member.task, error)
                continue
            yield member, perception.scene, [answer.text for answer in answers], perf_counter() - start

    @torch.inference_mode()
    def _reconstruct(self, group: Sequence[ReadScene]) -> list[Scene]:
        """All of a group in one pass where that was seen to change no bit, else each by itself."""
        model, pixels = self.model, [member.images.pixels for member in group]

        prompts = PromptBuilder(model.tokenizer, model.config, model.placement.device)

        def predict(chosen: Sequence[torch.Tensor]) -> list[GeometryPrediction]:
            return reconstruct_together(model.network, prompts, model.view_attention, chosen)

        size = (len(group), *group[0].size)
        if len(group) == 1 or not self._is_equal.get(size, True):
            predictions = [predict([scene])[0] for scene in pixels]
        else:
            predictions = predict(pixels)
            if size not in self._is_equal:
                alone = [predict([scene])[0] for scene in pixels]
                self._is_equal[size] = all(map(are_equal, alone, predictions))
                predictions = alone
        return [
            assemble_scene(prediction, member.images, member.photos.photos)
            for prediction, member in zip(predictions, group, strict=True)
        ]

    def _write(self, read: ReadScene, scene: Scene, answers: list[str], seconds: float) -> None:
        task, settings = read.task, self.settings
        try:
            with self.results.writing(task.id) as folder:
                files = [_place(folder, kind) for kind in settings.formats]
                for kind, place in zip(settings.formats, files, strict=True):
                    scene.save(f"{kind}:{place}")
                summary = {
                    "views": len(scene.views),
                    "points": scene.num_points,
                    "bounds": _bounds(scene),
                    "seconds": round(seconds, 4),
                    "questions": list(read.questions),
                    "answers": answers,
                    "files": [place.name for place in files],
                    "checkpoint": settings.checkpoint,
                }
                text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
                (folder / SUMMARY).write_text(text, encoding="utf-8")
        except Exception as error:  # noqa: BLE001
            self._fail(task, error)

    def _fail(self, task: SceneTask, error: Exception) -> None:
        if isinstance(error, G2VLMError):
            # A disk may have room again; a broken photo stays broken.
            is_final = not isinstance(error, OutputError)
            self.results.fail(task.id, " ".join(str(error).split()), is_final=is_final)
            return
        lines = traceback.format_exception(error)
        self.results.fail(task.id, "".join(lines).strip()[-2000:], is_final=False)


def _place(folder: Path, kind: str) -> Path:
    chosen = FORMATS[kind]
    return folder / (kind if chosen.is_folder else f"scene{chosen.endings[0]}")


def _bounds(scene: Scene) -> list[list[float]] | None:
    """Lowest and highest corner; None of a scene without points."""
    if scene.num_points == 0:
        return None
    box = scene.bounds()
    return [box.minimum.tolist(), box.maximum.tolist()]
