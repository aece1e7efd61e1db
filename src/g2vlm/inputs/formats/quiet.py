"""Silence while decoding, also with several threads at it.

Warning filters are global to the process. So the first thread that decodes adds filters for the decoders'
own modules and the last one takes them away; warnings of anything else pass at all times.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_DECODERS = r"(PIL|pillow_heif|rawpy|g2vlm\.inputs\.(decode|pages|formats))(\.|$)"
_LOCK = threading.Lock()
_active = 0
_added: list[object] = []


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Ignore what image decoders warn about: what matters is told by our own errors and warnings."""
    global _active
    with _LOCK:
        _active += 1
        if _active == 1:
            warnings.filterwarnings("ignore", module=_DECODERS)
            _added.append(warnings.filters[0])
    try:
        yield
    finally:
        with _LOCK:
            _active -= 1
            if _active == 0:
                while _added:
                    filter_ = _added.pop()
                    if filter_ in warnings.filters:
                        warnings.filters.remove(filter_)  # type: ignore[attr-defined]
