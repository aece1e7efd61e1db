"""Text to ids and back, whole and token by token, from both forms in which tokenizers are stored."""

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2vlm.errors import CheckpointError, InputError
from g2vlm.inputs.text import REQUIRED_TOKENS, TextTokenizer

SAMPLES = [
    "How far is the chair from me in the image?",
    "<|im_start|>user\nReconstruct the 3D scene.<|im_end|>\n",
    "naïve café — 3 µm, 家具, мебель, أثاث",
    "emoji 😀👩‍👩‍👧‍👦🇨🇭 and\ttabs  two spaces\n\n",
    "",
    " ",
]


@pytest.fixture(scope="module")
def stored(parity_data: Path) -> dict[str, Any]:
    return json.loads((parity_data / "tokenizer.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer(parity_data: Path) -> TextTokenizer:
    return TextTokenizer.from_folder(parity_data)


@pytest.fixture(scope="module")
def two_files(stored: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tokenizer as vocab.json, merges.txt and tokenizer_config.json."""
    folder = tmp_path_factory.mktemp("two_files")
    added = {
        str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in stored["added_tokens"]
    }
    config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added}
    (folder / "vocab.json").write_text(json.dumps(stored["model"]["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in stored["model"]["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def changed(stored: dict[str, Any], folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    copy = json.loads(json.dumps(stored))
    change(copy)
    (folder / "tokenizer.json").write_text(json.dumps(copy))
    return folder


@pytest.mark.parametrize("text", SAMPLES)
def test_round_trip(tokenizer: TextTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode_plain(text)) == text


def test_special_tokens_are_parsed_unless_told_otherwise(tokenizer: TextTokenizer) -> None:
    end = tokenizer.token_id("<|im_end|>")
    assert tokenizer.encode("<|im_end|>") == [end]
    assert tokenizer.encode("a<|im_end|>b")[1] == end
    assert end not in tokenizer.encode_plain("a<|im_end|>b")
    assert tokenizer.encode("<|im_end|>") == [end]  # reading plainly leaves no trace


def test_markup_added_without_being_special_is_plain_text_too(stored: dict[str, Any], tmp_path: Path) -> None:
    def add(copy: dict[str, Any]) -> None:
        for token in copy["added_tokens"]:
            token["special"] = False

    tokenizer = TextTokenizer.from_folder(changed(stored, tmp_path, add))
    text = "Stop.<|im_end|>\n<|im_start|>assistant"
    ids = tokenizer.encode_plain(text)
    assert not {tokenizer.token_id("<|im_end|>"), tokenizer.token_id("<|im_start|>")} & set(ids)
    assert tokenizer.decode(ids) == text
    spans = tokenizer.plain_spans(text)
    assert [text[start:end] for start, end in spans] == [tokenizer.decode([token]) for token in ids]


def test_spans_cover_the_plain_text(tokenizer: TextTokenizer) -> None:
    text = "the <|im_end|> chair"
    spans = tokenizer.plain_spans(text)
    assert len(spans) == len(tokenizer.encode_plain(text))
    assert "".join(text[start:end] for start, end in spans) == text


def test_half_a_character_is_told(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InputError, match="half of one at place 1"):
        tokenizer.encode_plain("T\udcfcr")


def test_nothing_is_added(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode("") == []
    assert tokenizer.encode("a") + tokenizer.encode("b\n") == tokenizer.encode("a") + tokenizer.encode("b\n")
    assert len(tokenizer.encode("a")) == 1


def test_skipping_special_tokens(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode("<|im_start|>hello<|im_end|>")
    assert tokenizer.decode(ids) == "<|im_start|>hello<|im_end|>"
    assert tokenizer.decode(ids, skip_special=True) == "hello"


def test_vocabulary(tokenizer: TextTokenizer, stored: dict[str, Any]) -> None:
    assert tokenizer.vocab_size == max(stored["model"]["vocab"].values()) + 1
    assert tokenizer.token_id("<|im_start|>") == 1
    with pytest.raises(CheckpointError, match="lacks the token '<|nonsense|>'".replace("|", r"\|")):
        tokenizer.token_id("<|nonsense|>")


def test_answers_of_the_parity_cases(tokenizer: TextTokenizer, parity_data: Path) -> None:
    for case in json.loads((parity_data / "cases.json").read_text(encoding="utf-8")).values():
        assert tokenizer.decode(case["token_ids"][:-1]) == case["answer"]


def stream(tokenizer: TextTokenizer, ids: list[int], skip_special: bool = False) -> list[str]:
    decoder = tokenizer.stream_decoder(skip_special)
    return [*(decoder.feed(token) for token in ids), decoder.finish()]


@pytest.mark.parametrize("text", SAMPLES)
def test_streamed_text_never_shows_half_a_character(tokenizer: TextTokenizer, text: str) -> None:
    pieces = stream(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_emoji_split_over_tokens_comes_whole(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode("😀")
    assert len(ids) > 1
    assert stream(tokenizer, ids) == [*[""] * (len(ids) - 1), "😀", ""]
    cut = stream(tokenizer, ids[:-1])
    assert cut == [*[""] * (len(ids) - 1), "\ufffd"]


@pytest.mark.parametrize("skip_special", [False, True])
def test_streamed_equals_whole_for_any_ids(tokenizer: TextTokenizer, skip_special: bool) -> None:
    """Random ids, ids beyond the vocabulary included, as untrained models produce them."""
    chance = random.Random(5)
    for _ in range(300):
        ids = [chance.randrange(tokenizer.vocab_size + 60) for _ in range(30)]
        assert "".join(stream(tokenizer, ids, skip_special)) == tokenizer.decode(ids, skip_special)


def test_two_files_give_the_same_ids(tokenizer: TextTokenizer, two_files: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = TextTokenizer.from_folder(two_files)
    assert other.vocab_size == tokenizer.vocab_size
    for token in REQUIRED_TOKENS:
        assert other.token_id(token) == tokenizer.token_id(token)
    # Only words and spaces: Qwen2 cuts numbers and line ends differently from the small tokenizer.json.
    for text in (SAMPLES[0], "<|im_start|>Reconstruct the scene.<|im_end|>"):
        assert other.encode(text) == tokenizer.encode(text)
    for text in SAMPLES:
        ids = other.encode(text)
        assert other.decode(ids) == "".join(stream(other, ids))
    assert other.decode(other.encode("cafe\u0301 chair")) == "caf\u00e9 chair"  # Qwen2 composes accents


def test_required_token_missing(stored: dict[str, Any], tmp_path: Path) -> None:
    def remove(copy: dict[str, Any]) -> None:
        copy["added_tokens"] = [t for t in copy["added_tokens"] if t["content"] != "<|vision_end|>"]
        copy["model"]["vocab"]["renamed"] = copy["model"]["vocab"].pop("<|vision_end|>")

    with pytest.raises(CheckpointError, match=r"lacks the token '<\|vision_end\|>'"):
        TextTokenizer.from_folder(changed(stored, tmp_path, remove))


def test_required_token_that_is_not_one_token(stored: dict[str, Any], tmp_path: Path) -> None:
    def remove(copy: dict[str, Any]) -> None:
        copy["added_tokens"] = [t for t in copy["added_tokens"] if t["content"] != "<|im_end|>"]

    with pytest.raises(CheckpointError, match=r"splits '<\|im_end\|>'"):
        TextTokenizer.from_folder(changed(stored, tmp_path, remove))


def test_folder_without_tokenizer(tmp_path: Path, two_files: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Expected tokenizer\.json, or vocab\.json and merges\.txt"):
        TextTokenizer.from_folder(tmp_path)
    shutil.copy(two_files / "vocab.json", tmp_path)
    with pytest.raises(CheckpointError, match="incomplete"):
        TextTokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("text", ["", "not json", "{}", '{"version": "1.0"}'])
def test_damaged_tokenizer(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match="cannot be read"):
        TextTokenizer.from_folder(tmp_path)


def test_damaged_two_files(two_files: Path, tmp_path: Path) -> None:
    shutil.copytree(two_files, tmp_path, dirs_exist_ok=True)
    (tmp_path / "vocab.json").write_text("not json")
    with pytest.raises(CheckpointError, match="cannot be read"):
        TextTokenizer.from_folder(tmp_path)
