"""Cases of schemathesis against a running service: valid and invalid ones, every endpoint, all checks.

    python scripts/check_server.py --cases 10000

Counts requests and answers by the service's own metrics, and fails if schemathesis finds anything, if one
answer was a 5xx, or if a request is still open at the end.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx

CONFIG = Path(__file__).parent / "schemathesis.toml"
CALM_S = 30.0
"""After which no request may be open."""
_SAMPLE = re.compile(
    r'^g2vlm_requests_total\{method="(\w+)",route="([^"]+)",status="(\d+)"\} ([\d.e+]+)$', re.M
)


def main() -> int:
    """Run rounds until there were enough cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="requests at least")
    parser.add_argument("--examples", type=int, default=60, help="random cases of each operation and phase")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoint", default="g2vlm-tiny")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return check(options, Path(folder))


def check(options: argparse.Namespace, folder: Path) -> int:
    """Start a service, run rounds, look at what is left."""
    service, address = start(options.checkpoint, folder)
    try:
        found, rounds, start_s = 0, 0, time.monotonic()
        while sum(answers(address).values()) < options.cases:
            found |= run_round(address, options.examples, options.seed + rounds, folder)
            rounds += 1
            if found:
                break
        counted = answers(address)
        left = open_requests(address)
        seconds = time.monotonic() - start_s
    finally:
        service.terminate()
        ended = service.wait(60)
    bad = {status: number for status, number in counted.items() if status >= 500}
    print(f"{sum(counted.values())} cases in {rounds} rounds, {seconds:.0f} s")
    print(f"by status: {dict(sorted(counted.items()))}")
    print(f"answers of 5xx: {sum(bad.values())}; requests left open: {left}; exit of the service: {ended}")
    return int(bool(found or bad or left or ended))


def start(checkpoint: str, folder: Path) -> tuple["subprocess.Popen[str]", str]:
    """A service with small limits, so that many cases fit into little time."""
    words = [
        sys.executable,
        "-m",
        "g2vlm",
        "serve",
        "--port",
        "0",
        "--ckpt",
        checkpoint,
        "--log_level",
        "error",
    ]
    limits = ["--request_seconds", "20", "--answer_tokens", "32", "--disk_bytes", "200000000"]
    limits += ["--tenant_disk_bytes", "200000000", "--data", str(folder / "data")]
    log = (folder / "log").open("w")
    service = subprocess.Popen([*words, *limits], stdout=subprocess.PIPE, stderr=log, text=True)
    assert service.stdout is not None
    address = service.stdout.readline().strip()
    if not address:
        raise SystemExit((folder / "log").read_text())
    return service, address


def run_round(address: str, examples: int, seed: int, folder: Path) -> int:
    """One run of schemathesis; its exit code."""
    words = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    words += [f"{address}/openapi.json", "--checks", "all", "--max-examples", str(examples)]
    words += ["--phases", "examples,coverage,fuzzing,stateful", "--mode", "all", "--seed", str(seed)]
    words += ["--suppress-health-check", "all", "--generation-database", "none", "--max-failures", "20"]
    return subprocess.run(words, cwd=folder, env={**os.environ, "NO_COLOR": "1"}, check=False).returncode


def answers(address: str) -> Counter[int]:
    """Numbers of answers so far by status, without those that this script asked for."""
    counted: Counter[int] = Counter()
    for _method, route, status, number in _SAMPLE.findall(httpx.get(f"{address}/metrics").text):
        if route != "/metrics":
            counted[int(status)] += int(float(number))
    return counted


def open_requests(address: str) -> int:
    """Requests that are still in work after a while, beside the one that asks."""
    end = time.monotonic() + CALM_S
    while True:
        text = httpx.get(f"{address}/metrics").text
        left = sum(
            int(float(re.search(rf"^{name} ([\d.]+)$", text, re.M)[1]))  # type: ignore[index]
            for name in ("g2vlm_requests_open", "g2vlm_answers_running", "g2vlm_waiting")
        )
        if left <= 1 or time.monotonic() > end:
            return left - 1
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
