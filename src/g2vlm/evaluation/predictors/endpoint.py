"""Questions to any server that speaks OpenAI's chat completions: this package's own, vLLM, a provider."""

import base64
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from g2vlm.errors import InputError
from g2vlm.evaluation.predictors.interface import Questions

KEY_VARIABLE = "OPENAI_API_KEY"
_ATTEMPTS = 4
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Endpoint:
    """Asks a server; the key, if it needs one, is in the environment variable `OPENAI_API_KEY`."""

    url: str
    """Up to and including the version, such as http://localhost:8000/v1."""
    model: str = "default"
    """Name of the model at the server."""
    max_new_tokens: int = 160
    num_parallel: int = 4
    """Questions under way at once."""

    def answer(self, asked: Questions) -> Sequence[str]:
        """One request for each question, temperature 0, photos as PNG in front of the text.

        Raises:
            InputError: the server cannot be reached, refuses, or answers something else.
        """
        urls = [_data_url(photo) for photo in asked.photos]
        pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        with ThreadPoolExecutor(self.num_parallel) as threads:
            return list(threads.map(lambda text: self._ask(pictures, text), asked.texts))

    def _ask(self, pictures: list[dict], question: str) -> str:
        content = [*pictures, {"type": "text", "text": question}]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.max_new_tokens,
            "temperature": 0,
        }
        reply = self._post(json.dumps(body).encode())
        try:
            return str(json.loads(reply)["choices"][0]["message"]["content"] or "")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"Expected a chat completion from {self.url}, got {reply[:200]!r}: name an OpenAI-compatible "
                "server."
            ) from error

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {os.environ[KEY_VARIABLE]}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", body, headers)
        for attempt in range(_ATTEMPTS):
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:
                    return bytes(reply.read())
            except urllib.error.HTTPError as error:
                # Busy servers say 429 or 503: worth another try. Other refusals will not change.
                if error.code not in (429, 503) or attempt == _ATTEMPTS - 1:
                    told = error.read()[:300].decode(errors="replace")
                    raise InputError(f"{self.url} answered {error.code}: {told}") from error
            except (OSError, ValueError) as error:
                raise InputError(f"Expected an OpenAI-compatible server at {self.url}: {error}.") from error
            time.sleep(0.5 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


def _data_url(photo: Image.Image) -> str:
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
