"""`g2vlm chat` for real, on small random weights: answers streamed and kept, questions from everywhere."""

import io
import json
from pathlib import Path

import pytest

from g2vlm.cli import chat
from g2vlm.cli.main import main


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty-cache"))


def type_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Put bytes on standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


def test_chat_streams_exactly_the_answer(
    checkpoint: str, photos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data_path", photos, "--ckpt", checkpoint, "--max_new_tokens", "8", "--dtype", "float32"]
    assert main(["chat", *words]) == 0
    streamed = capsys.readouterr().out
    assert main(["chat", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert streamed == told["answer"] + "\n"
    assert told["question"] == chat.DEFAULT_QUESTION
    assert 1 <= len(told["token_ids"]) <= 8
    assert {"load_s", "forward_s", "prefill_s"} <= set(told["timings"])


def test_chat_can_ask_for_reasoning(checkpoint: str, photos: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["chat", "--ckpt", checkpoint, "--data_path", photos, "--max_new_tokens", "4", "--json"]
    said = []
    for more in (["--reasoning", "on"], ["--question", f"{chat.DEFAULT_QUESTION} Think step by step."]):
        assert main([*words, *more]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0]["token_ids"] == said[1]["token_ids"]
    # What was asked is shown as it was asked.
    assert said[0]["question"] == chat.DEFAULT_QUESTION


def test_chat_interactive_asks_every_line_on_one_perception(
    checkpoint: str, photos: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, b"Where is it?\n\nHow far?\nexit\nnot asked\n")
    words = ["--data_path", photos, "--ckpt", checkpoint, "--max_new_tokens", "3", "--question", "First?"]
    assert main(["chat", *words, "--interactive", "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert [answer["question"] for answer in told["answers"]] == ["First?", "Where is it?", "How far?"]
    assert captured.err.count("reading ") == 1


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_chat_reads_questions_in_any_encoding(
    encoding: str,
    checkpoint: str,
    photos: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = "Where is the lamp?\r\nWo ist die Tür?\r\n".encode(encoding)
    type_in(monkeypatch, data)
    (tmp_path / "questions.txt").write_bytes(data)
    words = ["--data_path", photos, "--ckpt", checkpoint, "--max_new_tokens", "2", "--json"]
    for how in (["--interactive"], ["--questions", str(tmp_path / "questions.txt")]):
        assert main(["chat", *words, *how]) == 0
        told = json.loads(capsys.readouterr().out)
        asked = [answer["question"] for answer in told["answers"]]
        assert asked == ["Where is the lamp?", "Wo ist die Tür?"]


def test_chat_keeps_the_answers_before_an_error(
    checkpoint: str, photos: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, b"Where is it?\n\x00\x01\x02\nnot asked\n")
    words = ["--data_path", photos, "--ckpt", checkpoint, "--max_new_tokens", "2"]
    assert main(["chat", *words, "--interactive", "--json"]) == 2
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert [answer["question"] for answer in told["answers"]] == ["Where is it?"]
    assert told["error"].startswith("Expected text from standard input")
    assert captured.err.splitlines()[-1] == f"g2vlm chat: {told['error']}"


def test_chat_keeps_the_answers_before_an_interruption(
    checkpoint: str,
    photos: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from g2vlm.inference.perception import Perception

    real, asked = Perception.ask, []

    def ask(self, question, **options):
        asked.append(question)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(self, question, **options)

    monkeypatch.setattr(Perception, "ask", ask)
    (tmp_path / "questions.jsonl").write_text('"One?"\n"Two?"\n"Three?"\n')
    words = ["--data_path", photos, "--ckpt", checkpoint, "--max_new_tokens", "2", "--json"]
    assert main(["chat", *words, "--questions", str(tmp_path / "questions.jsonl")]) == 130
    told = json.loads(capsys.readouterr().out)
    assert [answer["question"] for answer in told["answers"]] == ["One?"]
    assert told["error"] == "KeyboardInterrupt"


def test_chat_writes_the_scene_of_the_same_pass(checkpoint: str, photos: str, tmp_path: Path) -> None:
    target = tmp_path / "seen.ply"
    words = ["--data_path", photos, "--ckpt", checkpoint, "--max_new_tokens", "2"]
    assert main(["chat", *words, "--save_path", str(target)]) == 0
    assert target.read_bytes().startswith(b"ply\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--question", "  "], "empty text"),
        (["--questions", "no-such-file"], "Expected a file of questions"),
        (["--max_new_tokens", "0"], "--max_new_tokens of 1 or more"),
        (["--temperature", "-1"], "temperature of 0 or more"),
        (["--top_p", "0"], "top_p"),
        (["--top_k", "-1"], "top_k"),
    ],
)
def test_chat_mistakes_are_found_before_the_checkpoint(
    words: list[str], expected: str, photos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "--data_path", photos, "--ckpt", "no such checkpoint", *words]) == 2
    assert expected in last_error(capsys)


def test_chat_seed_fixes_a_drawn_answer(
    checkpoint: str, photos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data_path", photos, "--ckpt", checkpoint, "--max_new_tokens", "6", "--temperature", "5"]
    tokens = []
    for seed in ("1", "1", "2"):
        assert main(["chat", *words, "--seed", seed, "--json"]) == 0
        tokens.append(json.loads(capsys.readouterr().out)["token_ids"])
    assert tokens[0] == tokens[1] != tokens[2]
