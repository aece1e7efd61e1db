"""A scene that a service has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g2vlm.client.connection import Connection, ServiceError

if TYPE_CHECKING:
    from g2vlm.scene.scene import Scene

Progress = Callable[[float], None]
"""Called with the share that is done, 0 to 1."""


@dataclass(frozen=True)
class RemoteAnswer:
    """An answer of a service."""

    text: str
    finish_reason: str
    """"stop", or "length" where it has as many tokens as were allowed."""
    num_prompt_tokens: int
    num_tokens: int
    """Of the answer."""

    def __str__(self) -> str:
        return self.text


class RemoteScene:
    """A scene of a service."""

    def __init__(self, connection: Connection, scene_id: str) -> None:
        self.connection, self.id = connection, scene_id
        self._place = f"/v1/scenes/{scene_id}"

    def __repr__(self) -> str:
        return f"RemoteScene({self.id!r})"

    @property
    def status(self) -> str:
        """Queued, running, done or failed."""
        return str(self.describe()["status"])

    def describe(self) -> Any:
        """Everything that is told about it: status, progress, cameras, bounds, expiry."""
        return self.connection.get(self._place)

    def wait(self, on_progress: Progress | None = None) -> None:
        """Wait until it is done.

        Raises:
            ServiceError: it cannot be computed, or the service goes down.
        """
        for name, data in self.connection.events("GET", f"{self._place}/events"):
            if name == "failed":
                raise ServiceError(f"The scene could not be computed: {data['error']}")
            if on_progress is not None:
                on_progress(float(data["progress"]))
            if name == "done":
                return
        raise ServiceError("The service went down before the scene was done: wait for it again.")

    def save(self, path: str | Path, kind: str | None = None) -> Path:
        """Write it to a file of this machine; the ending chooses the format.

        Args:
            path: for example room.glb, or colmap.zip with the kind of a folder format.
            kind: of the format, where an ending has several.
        """
        target = Path(path)
        query = f"?kind={kind}" if kind else ""
        self.connection.fetch(f"{self._place}.{target.suffix.lower().lstrip('.')}{query}", target)
        return target

    def load(self) -> "Scene":
        """The scene itself, as `Model.reconstruct` returns it."""
        import tempfile

        from g2vlm.scene.storage import read_npz

        with tempfile.TemporaryDirectory() as folder:
            return read_npz(self.save(Path(folder) / "scene.npz"))

    def ask(self, question: str, *, turns: Sequence[tuple[str, str]] = (), **options: Any) -> RemoteAnswer:
        """Answer a question about it.

        Args:
            question: in natural language.
            turns: questions and answers before it.
            options: max_tokens, temperature, top_p, top_k, seed.
        """
        before = [{"question": asked, "answer": said} for asked, said in turns]
        body = {"question": question, "turns": before, **options}
        found = self.connection.post(f"{self._place}/ask", body)
        usage = found["usage"]
        return RemoteAnswer(
            found["answer"], found["finish_reason"], usage["prompt_tokens"], usage["completion_tokens"]
        )

    def measure(self, kind: str, **where: Any) -> tuple[tuple[float, ...], str]:
        """Lengths in the scene and their unit; see the service's description of `measure`."""
        found = self.connection.post(f"{self._place}/measure", {"kind": kind, **where})
        return tuple(found["values"]), str(found["unit"])

    def delete(self) -> None:
        """Remove it from the service."""
        self.connection.delete(self._place)
