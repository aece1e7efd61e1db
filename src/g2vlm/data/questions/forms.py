"""What a question asks for, apart from its words: the forms that every phrasing must be able to express."""

from dataclasses import dataclass
from enum import Enum


class AskForm(Enum):
    """One thing that can be asked; the values say which names it is about, in their order."""

    POINT_DEPTH = "depth of {0}"
    NEAREST_POINT = "which marked point is nearest"
    FARTHEST_POINT = "which marked point is farthest"
    OBJECT_DISTANCE = "distance between {0} and {1}"
    CAMERA_DISTANCE = "distance of {0} from the camera"
    LEFT_OR_RIGHT = "is {0} left or right of {1}"
    HIGHER_OR_LOWER = "is {0} higher or lower than {1}"
    NEARER_OR_FARTHER = "is {0} nearer or farther than {1}"
    TALLEST = "which marked object is tallest"
    WIDEST = "which marked object is widest"
    COUNT = "how many {0} there are"
    WHICH_VIEW = "which view shows {0}"
    SAME_POINT = "which point of view 2 is {0} of view 1"
    MOVED_BY = "how far the camera moved"
    MOVED_SIDEWAYS = "did the camera move left or right"
    MOVED_AHEAD = "did the camera move forward or backward"
    TURNED_BY = "by how much the camera turned"
    TURNED_TO = "did the camera turn left or right"
    HIDDEN_SIDE = "on which side of {0} is {1}"
    SEEN_FROM = "standing at {0} facing {1}, on which side is {2}"


@dataclass(frozen=True)
class Ask:
    """A form and the names that fill it."""

    form: AskForm
    names: tuple[str, ...] = ()
    """Without articles, such as "red chair", "view 2", "chairs"; the phrasings put them into sentences."""
