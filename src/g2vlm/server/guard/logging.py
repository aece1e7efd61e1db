"""Logs of the service: one line of JSON each, with the id of the request, and without secrets."""

import io
import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_request_id: ContextVar[str] = ContextVar("g2vlm_request_id", default="")
_tenant: ContextVar[str] = ContextVar("g2vlm_tenant", default="")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SECRET_NAMES = re.compile(r"authorization|cookie|api[-_]?key|token|secret|password", re.I)
# Every shape in which a secret or somebody's photo may stand in a text, and what stands there instead.
_SECRETS = (
    (re.compile(r"\bg2vlm-[0-9a-f]{8}-[A-Za-z0-9_-]{8,}"), "g2vlm-***"),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]+", re.I), r"\1 ***"),
    (
        re.compile(
            r"\b((?:authorization|cookie|api[-_]?key|token|secret|password)[\"']?\s*[:=]\s*)\S+", re.I
        ),
        r"\1***",
    ),
    (re.compile(r"\b(hf|sk|ghp|xoxb)[_-][A-Za-z0-9_-]{16,}"), r"\1-***"),
    (re.compile(r"(data:[a-z0-9.+/-]*(?:;[a-z0-9=._-]+)*,)[A-Za-z0-9+/=_%-]{17,}", re.I), r"\1..."),
    (re.compile(r"(https?://)[^\s/@]+@", re.I), r"\1***@"),
    # Queries of signed URLs are passwords for a while.
    (re.compile(r"(https?://[^\s?#\"']+)\?[^\s\"']+", re.I), r"\1?..."),
)
_MOST_TEXT = 8192
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def request_id() -> str:
    """The id of the request that this code works for; empty outside of requests."""
    return _request_id.get()


@contextmanager
def request_context(wanted: str | None = None, tenant: str = "") -> Iterator[str]:
    """Give a request an id, which all logs inside the block carry.

    Args:
        wanted: The client's own id, taken if it is short and plain: it ends up in logs and headers.
        tenant: Who asks, once that is known.

    Yields:
        The id.
    """
    chosen = wanted if wanted and _ID.fullmatch(wanted) else f"req_{secrets.token_hex(8)}"
    tokens = _request_id.set(chosen), _tenant.set(tenant)
    try:
        yield chosen
    finally:
        _request_id.reset(tokens[0])
        _tenant.reset(tokens[1])


def redacted(text: str) -> str:
    """A text without keys, passwords and the content of data URLs; long ones are cut."""
    cut = text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}... ({len(text)} characters)"
    for pattern, instead in _SECRETS:
        cut = pattern.sub(instead, cut)
    return cut


def redacted_value(name: str, value: Any) -> Any:
    """A value for a log, without secrets.

    Args:
        name: What it is called; values of such names as `Authorization` are left out whole.
        value: Anything.
    """
    if _SECRET_NAMES.search(name):
        return "***"
    if isinstance(value, Mapping):
        return {redacted(str(key)): redacted_value(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted_value(name, item) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        # JSON knows no NaN: readers of logs stumble over it.
        return value if value == value and abs(value) != float("inf") else str(value)
    return redacted(value if isinstance(value, str) else str(value))


class JsonFormatter(logging.Formatter):
    """Each record as one line of JSON: time, level, logger, message, request, tenant, and its own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, which no content of a record can break in two."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        for name, variable in (("request_id", _request_id), ("tenant", _tenant)):
            if value := variable.get():
                line[name] = value
        for name, value in vars(record).items():
            if name not in _STANDARD and not name.startswith("_"):
                line.setdefault(name, redacted_value(name, value))
        if record.exc_info:
            line["error"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=True)


def set_up_logging(level: str = "info", stream: io.TextIOBase | None = None) -> None:
    """Send all logs of the service, of uvicorn and of libraries to one stream as JSON.

    Args:
        level: "debug", "info", "warning" or "error".
        stream: Where to; stderr if None.
    """
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        # They bring handlers of their own, which print what came as it came.
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # A line for every request comes from the service, with the id; httpx and the like repeat whole URLs.
    for name in ("uvicorn.access", "httpx", "httpcore", "PIL", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
