"""`g2vlm serve`: what it refuses, keys, and a process from start to end."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra server")

from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.cli.main import main
from g2vlm.server.guard.keys import KeyRing
from g2vlm.server.guard.refusals import NotAuthenticatedError


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--host", "0.0.0.0"], "API keys"),
        (["--port", "70000"], "--port"),
        (["--log_level", "loud"], "--log_level"),
        (["--grace_s", "-1"], "--grace_s"),
        (["--queue_length", "-1"], "queue_length"),
        (["--keys", "nowhere.json"], "key file"),
        (["--new_key", "anna"], "--keys"),
        (["--host", "203.0.113.7", "--open_to_all"], "Cannot listen"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_key_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys.json"
    assert main(["serve", "--keys", str(keys), "--new_key", "anna"]) == 0
    token = capsys.readouterr().out.strip()
    assert KeyRing(keys).check(f"Bearer {token}").tenant == "anna"
    assert token not in keys.read_text()


def test_a_key_is_revoked_by_its_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["serve", "--keys", str(tmp_path / "keys.json")]
    assert main([*words, "--new_key", "anna"]) == main([*words, "--new_key", "bob"]) == 0
    anna, bob = capsys.readouterr().out.split()
    ring = KeyRing(tmp_path / "keys.json")
    assert main([*words, "--revoke_key", anna.split("-")[1]]) == 0
    assert "of anna" in capsys.readouterr().out
    with pytest.raises(NotAuthenticatedError):
        ring.check(f"Bearer {anna}")
    assert ring.check(f"Bearer {bob}").tenant == "bob"
    assert main([*words, "--revoke_key", "nobody"]) == 2
    assert main([*words, "--revoke_key", "a", "--new_key", "b"]) == 2


@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGTERM])
def test_a_service_starts_answers_and_ends_in_order(tmp_path: Path, order: signal.Signals) -> None:
    checkpoint = random_checkpoint(tmp_path / "random")
    words = ["--ckpt", str(checkpoint), "--port", "0", "--json", "--compiled", "off", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "g2vlm", "serve", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    address = json.loads("".join(lines))["address"]
    with urllib.request.urlopen(f"{address}/health") as response:
        assert json.load(response) == {"status": "ok"}
    process.send_signal(order)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "Traceback" not in told
