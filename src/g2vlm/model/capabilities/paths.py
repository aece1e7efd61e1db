"""The fast paths, what was found out about them, and what the user wishes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum

from g2vlm.errors import DeviceError

VARIABLE = "G2VLM_PATHS"
"""Names paths and whether they are taken, such as `bfloat16=off,packed=on`; `all` stands for every path."""


class FastPath(Enum):
    """A way to compute the same faster, on a CPU."""

    BFLOAT16 = "bfloat16"
    """Towers in bfloat16 rather than float32."""
    INTEGER_HEADS = "integer-heads"
    """Float32 geometry heads through two int8 planes."""
    INT8 = "int8"
    """Products with an int8 language side by oneDNN rather than with widened weights."""
    INT4 = "int4"
    """Products with an int4 language side by torch's own product rather than with widened weights."""
    DECODE_FLOAT32 = "decode-float32"
    """Passes over one token in C rather than operation by operation; float32."""
    DECODE_BFLOAT16 = "decode-bfloat16"
    """The same in bfloat16."""
    DECODE_INT8 = "decode-int8"
    """The same with an int8 language side."""
    DECODE_INT4 = "decode-int4"
    """The same with an int4 language side."""
    PACKED = "packed"
    """Passes in C over packed weights rather than over bfloat16."""


class Wish(Enum):
    """What the user wants of a path."""

    AUTO = "auto"
    """Taken where it is right and faster."""
    ON = "on"
    """Taken where it is right."""
    OFF = "off"
    """Never taken."""


@dataclass(frozen=True)
class Verdict:
    """What was found out about a path."""

    path: FastPath
    error: float | None
    """Relative error of the numeric test; None where it could not run."""
    tolerance: float
    """Largest error that is right."""
    plain_s: float | None
    """Seconds of the plain way; None where nothing was timed."""
    fast_s: float | None
    """Seconds of the fast way."""
    settled: bool
    """The timings agreed with each other; else the machine was busy."""
    reason: str = ""
    """Why the path cannot run, where it cannot."""
    wish: Wish = Wish.AUTO
    """What the user wants."""

    @property
    def right(self) -> bool:
        """Whether its numbers are right here."""
        return self.error is not None and self.error <= self.tolerance

    @property
    def faster(self) -> bool:
        """Whether it took less time than the plain way."""
        return self.fast_s is not None and self.plain_s is not None and self.fast_s < self.plain_s

    @property
    def taken(self) -> bool:
        """Whether it is used where nobody asks for it by name."""
        return self.wish is not Wish.OFF and self.right and (self.faster or self.wish is Wish.ON)

    def __str__(self) -> str:
        """`taken: 1.2 ms against 4.5 ms plain, error 2e-03`."""
        if self.wish is Wish.OFF:
            return f"switched off by {VARIABLE}"
        if self.error is None:
            return f"not here: {self.reason}"
        if not self.right:
            return f"not right here: error {self.error:.0e}, at most {self.tolerance:.0e} is right"
        wanted = f", wanted by {VARIABLE}" if self.wish is Wish.ON else ""
        how = f"{'taken' if self.taken else 'slower here, not taken'}{wanted}"
        busy = "" if self.settled else "; measured on a busy machine"
        return f"{how}: {_ms(self.fast_s)} against {_ms(self.plain_s)} plain, error {self.error:.0e}{busy}"


def _ms(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds * 1e3:.3g} ms"


_everywhere: ContextVar[Wish | None] = ContextVar("everywhere", default=None)


@contextmanager
def wished_everywhere(wish: Wish) -> Iterator[None]:
    """In this thread, and until the end of the block, wish the same of every path.

    It goes before the environment. Who compares paths loads the plain choice so.
    """
    token = _everywhere.set(wish)
    try:
        yield
    finally:
        _everywhere.reset(token)


def wish_for(path: FastPath) -> Wish:
    """What the environment says about a path.

    Raises:
        DeviceError: the variable cannot be read.
    """
    if (everywhere := _everywhere.get()) is not None:
        return everywhere
    wishes = {}
    for word in os.environ.get(VARIABLE, "").replace(",", " ").split():
        name, _, value = word.partition("=")
        if name not in {"all", *(known.value for known in FastPath)} or value not in {w.value for w in Wish}:
            known = ", ".join(["all", *(known.value for known in FastPath)])
            raise DeviceError(
                f"Expected {VARIABLE} as words such as packed=off (on, off or auto; one of {known}), "
                f"got {word!r}."
            )
        wishes[name] = Wish(value)
    return wishes.get(path.value, wishes.get("all", Wish.AUTO))
