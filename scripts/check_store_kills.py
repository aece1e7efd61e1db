"""Kill a process that stores uploads and scenes at random instants, and look at what is left each time.

python scripts/check_store_kills.py --kills 200

A child process stores, finishes, extends and deletes scenes in a loop, and says what it has been promised by
the store. It is killed with SIGKILL, the store is opened again, and everything that was promised must be
there, whole, and nothing else. Ends with status 1 and the list of what is wrong, if anything is.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from g2vlm.server.guard.limits import Limits
from g2vlm.server.guard.refusals import NotFoundError
from g2vlm.server.store.records import JobState
from g2vlm.server.store.store import Store

TENANTS = ("ada", "bob")
LIMITS = Limits(jobs_per_tenant=10_000, scenes_per_tenant=100_000, scene_attempts=1000)
LONGEST_S = 0.5  # after the child is ready, until it is killed


class Promises:
    """What the store has said is stored, and what it may still hold because its answer did not come."""

    def __init__(self) -> None:
        self.uploads: set[tuple[str, str]] = set()
        self.scenes: set[tuple[str, str]] = set()
        self.done: dict[tuple[str, str], dict[str, str]] = {}
        self.doubtful: set[tuple[str, str]] = set()

    def take(self, line: str) -> None:
        """One line of the child; the last one may have been cut off."""
        try:
            word, tenant, item, *rest = json.loads(line)
        except ValueError:
            return
        key = (tenant, item)
        if word == "upload":
            self.uploads.add(key)
        elif word == "scene":
            self.scenes.add(key)
        elif word == "done":
            self.done[key] = rest[0]
        elif word == "added":
            self.done[key][rest[0]] = rest[1]
        elif word == "deleting":
            self.doubtful.add(key)
        elif word == "deleted":
            for known in (self.uploads, self.scenes, self.doubtful):
                known.discard(key)
            self.done.pop(key, None)


def work(folder: Path, seed: int) -> None:
    """The child: use the store without an end."""
    generator = random.Random(seed)

    def say(*words: object) -> None:
        os.write(1, json.dumps(words).encode() + b"\n")

    store = Store(folder, LIMITS)
    say("ready", "", "")
    while True:
        tenant = generator.choice(TENANTS)
        with store.uploads.receiving(tenant) as arriving:
            for _ in range(generator.randrange(1, 4)):
                arriving.write(generator.randbytes(generator.randrange(1, 200_000)))
            upload = store.uploads.finish(tenant, arriving, "image/png")
        say("upload", tenant, upload.id)
        scene = store.scenes.add(tenant, {"seed": generator.random()}, [upload.id])
        say("scene", tenant, scene.id)
        for waiting in store.scenes.waiting()[:2]:
            begun = store.scenes.begin(waiting.tenant, waiting.id)
            with store.scenes.filling(begun) as filling:
                for name in ("scene.npz", "cameras.json", "preview.png"):
                    (filling.folder / name).write_bytes(generator.randbytes(generator.randrange(1, 400_000)))
                filling.about = {"views": 3}
            files = {file.name: file.digest for file in store.scenes.files(begun.tenant, begun.id)}
            say("done", begun.tenant, begun.id, files)
            with store.scenes.adding(begun.tenant, begun.id, "scene.glb") as path:
                path.write_bytes(generator.randbytes(generator.randrange(1, 200_000)))
            added = {file.name: file.digest for file in store.scenes.files(begun.tenant, begun.id)}
            say("added", begun.tenant, begun.id, "scene.glb", added["scene.glb"])
        for old in store.scenes.list(tenant)[20:]:
            say("deleting", tenant, old.id)
            store.scenes.delete(tenant, old.id)
            say("deleted", tenant, old.id)


def kill_once(folder: Path, promises: Promises, generator: random.Random) -> None:
    """Start the child, kill it, and take in what it was promised."""
    command = [sys.executable, __file__, "--child", str(folder), "--seed", str(generator.randrange(1 << 30))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        if not child.stdout.readline():
            raise SystemExit("The child ended before it was killed.")
        time.sleep(generator.uniform(0, LONGEST_S))
        child.send_signal(signal.SIGKILL)
        for line in child.stdout:
            promises.take(line)


def look(folder: Path, promises: Promises) -> tuple[list[str], float]:
    """Open the store; what is wrong, and how many seconds opening took."""
    started_s = time.perf_counter()
    with Store(folder, LIMITS) as store:
        seconds = time.perf_counter() - started_s
        wrong = list(store.check())
        wrong += [f"{path.name}: left half-written" for path in (folder / "incoming").iterdir()]
        there = {(tenant, scene.id): scene for tenant in TENANTS for scene in store.scenes.list(tenant, 1000)}
        wrong += [f"{key[1]}: lost" for key in promises.scenes - there.keys() - promises.doubtful]
        for tenant, upload_id in promises.uploads:
            try:
                store.uploads.get(tenant, upload_id)
            except NotFoundError:
                wrong.append(f"{upload_id}: lost")
        # What was asked for but not yet told may be there; it is promised from now on.
        promises.scenes = set(there)
        for key in promises.doubtful:
            promises.done.pop(key, None)
        promises.doubtful.clear()
        for (tenant, scene_id), files in promises.done.items():
            found = {file.name: file.digest for file in store.scenes.files(tenant, scene_id)}
            if not files.items() <= found.items():
                wrong.append(f"{scene_id}: finished, but its files have changed")
            if there[tenant, scene_id].state is not JobState.DONE:
                wrong.append(f"{scene_id}: finished, but {there[tenant, scene_id].state.value} now")
        wrong += [
            f"{scene.id}: still {scene.state.value}"
            for scene in there.values()
            if scene.state not in (JobState.QUEUED, JobState.DONE)
        ]
    return wrong, seconds


def opening_seconds(num_rows: int) -> float:
    """How long a store with so many scenes takes to open."""
    with tempfile.TemporaryDirectory() as folder:
        with Store(folder, LIMITS) as store, store._database.changing() as rows:
            rows.executemany(
                "INSERT INTO scenes (tenant, id, state, request, created_s, updated_s, used_s, expires_s) "
                "VALUES ('ada', ?, ?, '{}', ?, 0, 0, 1e12)",
                [(f"scene_{n:032x}", "done" if n % 100 else "running", n) for n in range(num_rows)],
            )
        started_s = time.perf_counter()
        with Store(folder, LIMITS) as store:
            seconds = time.perf_counter() - started_s
            if store.recovery.num_requeued != len(range(0, num_rows, 100)):
                raise SystemExit(f"Expected interrupted scenes to wait again, got {store.recovery}.")
    return seconds


def main() -> int:
    """Kill so often as asked; the result as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rows", type=int, default=10_000, help="scenes in the store whose opening is timed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        work(options.child, options.seed)
    generator, promises, slowest_s = random.Random(options.seed), Promises(), 0.0
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(options.kills):
            kill_once(Path(name), promises, generator)
            found, seconds = look(Path(name), promises)
            slowest_s = max(slowest_s, seconds)
            wrong += [f"kill {number}: {line}" for line in found]
            if sys.stderr.isatty():
                print(f"\r{number + 1} of {options.kills} kills, {len(wrong)} wrong", end="", file=sys.stderr)
    result = {
        "kills": options.kills,
        "finished_scenes": len(promises.done),
        "wrong": len(wrong),
        "slowest_opening_s": round(slowest_s, 3),
        f"opening_with_{options.rows}_scenes_s": round(opening_seconds(options.rows), 3),
    }
    print(json.dumps(result))
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
