"""Words of a caller as members of an enum."""

from enum import Enum
from typing import TypeVar

from g2vlm.errors import InputError

_Choice = TypeVar("_Choice", bound=Enum)


def member_of(kind: type[_Choice], choice: _Choice | str | None, name: str) -> _Choice | None:
    """A member of an enum from itself or its value; None stays None.

    Raises:
        InputError: the value is not one of the enum's.
    """
    if choice is None or isinstance(choice, kind):
        return choice
    values = [member.value for member in kind]
    if choice not in values:
        raise InputError(f"Expected {name} to be one of {', '.join(values)}, got {choice!r}.")
    return kind(choice)
