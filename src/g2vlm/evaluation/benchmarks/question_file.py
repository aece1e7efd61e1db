"""Questions of one's own: a JSON-lines file with images beside it, and MindCube's, which is nearly one.

The file is the one that fine-tuning reads (`g2vlm.data.question_file`). Answers must be a letter of a choice
that the question lists ("A. left B. right"), or a number.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from g2vlm.data.question_file import Conversation, Turn, read_question_file
from g2vlm.errors import InputError
from g2vlm.evaluation.geometry import GeometryOptions
from g2vlm.evaluation.trials import Item, ItemGroup, Trial, inline_choices
from g2vlm.inputs.photos import load_photos

VERSION = 1
LAYOUT = "a .jsonl file of questions in LLaVA's layout, images beside it"
MINDCUBE_LAYOUT = (
    "MindCube's folder with MindCube_tinybench.jsonl or MindCube.jsonl in it, in raw/ or in data/raw/, and "
    "other_all_image/ beside raw/"
)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class QuestionFileBenchmark:
    """All conversations of a file; each of their turns is asked by itself.

    Raises:
        InputError: the file is missing or malformed, or an answer is neither a letter nor a number.
    """

    path: Path
    num_scenes: int | None = None
    """At most so many conversations; all if None."""
    geometry_options: GeometryOptions = field(default_factory=GeometryOptions)
    name: str = "question_file"
    families: dict[str, str] = field(default_factory=dict, hash=False)
    """Family of each conversation by its identifier; "question" where not given."""
    conversations: tuple[Conversation, ...] = ()
    """Read from `path` if empty."""

    def __post_init__(self) -> None:
        if not self.conversations:
            object.__setattr__(self, "conversations", read_question_file(self.path))
        for conversation in self.conversations:
            self._items(conversation)

    @property
    def task(self) -> str:
        """Name and version."""
        return f"{self.name}-{VERSION}"

    @property
    def settings(self) -> dict[str, Any]:
        """The file by name and content."""
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]
        return {"file": self.path.name, "sha256": digest, "num_scenes": len(self.scenes())}

    def scenes(self) -> Sequence[str]:
        """Line by line; identifiers alone may repeat."""
        names = [f"{number}:{one.identifier}" for number, one in enumerate(self.conversations, start=1)]
        return names[: self.num_scenes]

    def load(self, scene: str) -> Trial:
        """Decode the images of one conversation."""
        conversation = self.conversations[int(scene.split(":", 1)[0]) - 1]
        return Trial(groups=(ItemGroup(_decode(conversation.images), self._items(conversation)),))

    def _items(self, conversation: Conversation) -> tuple[Item, ...]:
        family = self.families.get(conversation.identifier, "question")
        return tuple(item_of(turn, conversation.identifier, family) for turn in conversation.turns)


def item_of(turn: Turn, identifier: str, family: str = "question") -> Item:
    """A question of a file as an item to be judged.

    Raises:
        InputError: its answer is neither a letter nor a number.
    """
    choices = inline_choices(turn.question)
    letter = turn.answer.strip("(). ")
    if re.fullmatch(r"[A-J]", letter):
        return Item(family, turn.question, letter, True, choices)
    if _NUMBER.fullmatch(turn.answer):
        return Item(family, turn.question, turn.answer, False)
    raise InputError(
        f"{identifier}: expected an answer that can be judged, a letter (A to J) or a plain number, got "
        f"{turn.answer[:60]!r}: leave such questions out of the file."
    )


def _decode(paths: Sequence[Path]) -> tuple[Image.Image, ...]:
    return tuple(load_photos(path).photos[0].image for path in paths)


def mindcube(folder: Path, num_scenes: int | None = None) -> QuestionFileBenchmark:
    """MindCube (arXiv 2506.21458), the small set where it is there, else the whole one.

    Questions go in as they are, with their choices. Families are the settings that identifiers name (around,
    rotation, among); "translation" is left out, as the official score does.

    Args:
        folder: see `MINDCUBE_LAYOUT`.
        num_scenes: at most so many questions.

    Raises:
        InputError: files are missing or malformed.
    """
    places = [folder / inside for inside in ("", "raw", "data/raw")]
    files = [place / name for name in ("MindCube_tinybench.jsonl", "MindCube.jsonl") for place in places]
    path = next((file for file in files if file.is_file()), None)
    roots = [root for root in (folder, folder / "data") if (root / "other_all_image").is_dir()]
    if path is None or not roots:
        raise InputError(f"Expected {MINDCUBE_LAYOUT}; {folder} does not look like it.")
    conversations = []
    families = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        conversation = _mindcube_conversation(line, f"{path}, line {number}", roots[0])
        family = _setting(conversation.identifier)
        if family != "translation":
            families[conversation.identifier] = family
            conversations.append(conversation)
    return QuestionFileBenchmark(
        path, num_scenes, name="mindcube", families=families, conversations=tuple(conversations)
    )


def _mindcube_conversation(line: str, where: str, root: Path) -> Conversation:
    try:
        record = json.loads(line)
        images = tuple(root / name for name in record["images"])
        turn = Turn(record["question"], record["gt_answer"].strip())
        conversation = Conversation(str(record["id"]), images, (turn,))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{where}: expected MindCube's id, images, question and gt_answer: {error!r}."
        ) from error
    missing = [str(image) for image in images if not image.is_file()]
    if missing or not images:
        raise InputError(f"{where}: image not found: {', '.join(missing) or 'none named'}.")
    return conversation


def _setting(identifier: str) -> str:
    known = ("around", "rotation", "translation", "among")
    return next((name for name in known if name in identifier.lower()), "other")
