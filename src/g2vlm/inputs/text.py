"""Text to token ids and back, with a decoder for answers that arrive token by token."""

import codecs
import threading
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from g2vlm.errors import CheckpointError, InputError

REQUIRED_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
"""Special tokens without which no prompt can be built."""


class TextTokenizer:
    """The byte-level tokenizer of a checkpoint.

    Safe to use from several threads.
    """

    def __init__(self, backend: Tokenizer, origin: str) -> None:
        self._backend = backend
        self._origin = origin
        self._lock = threading.Lock()
        self._added = frozenset(backend.get_added_tokens_decoder())
        self._vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        for token in REQUIRED_TOKENS:
            if backend.encode(token, add_special_tokens=False).ids != [self.token_id(token)]:
                raise CheckpointError(
                    f"The tokenizer in {origin} splits {token!r} instead of reading it as one token: "
                    "it must be listed among the added tokens."
                )

    @classmethod
    def from_folder(cls, folder: str | Path) -> "TextTokenizer":
        """Read the tokenizer of a checkpoint.

        `tokenizer.json` is read directly; a folder with only `vocab.json` and `merges.txt` is read as a Qwen2
        tokenizer through transformers, which takes a second or two to import.

        Args:
            folder: Checkpoint folder.

        Raises:
            CheckpointError: No tokenizer there, one that cannot be read, or one that lacks a token of
                `REQUIRED_TOKENS`.
        """
        folder = Path(folder)
        if (folder / "tokenizer.json").is_file():
            return cls(_read_tokenizer_json(folder / "tokenizer.json"), str(folder))
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return cls(_read_vocabulary_and_merges(folder), str(folder))
        raise CheckpointError(
            f"Expected tokenizer.json, or vocab.json and merges.txt, in {folder}: the checkpoint is "
            "incomplete, download it again."
        )

    @property
    def vocab_size(self) -> int:
        """Number of ids, counting gaps: every token's id lies in range(vocab_size)."""
        return self._vocab_size

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; special tokens written in it (`<|im_end|>`) become their ids.

        Nothing is added in front or behind.
        """
        with self._lock:
            return self._backend.encode(text, add_special_tokens=False).ids

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of a text in which special tokens mean nothing: `<|im_end|>` is read letter by letter.

        For text from people, who must not be able to end a turn or open another one.

        Raises:
            InputError: The text holds half a surrogate pair, which is no character.
        """
        return [token for token, _ in self._plain(text)]

    def plain_spans(self, text: str) -> list[tuple[int, int]]:
        """For each token of `encode_plain(text)`, the characters it stands for, as a range."""
        return [span for _, span in self._plain(text)]

    def _plain(self, text: str) -> list[tuple[int, tuple[int, int]]]:
        """Ids and character ranges of a text without markup."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"Expected a text of whole characters, got half of one at place {error.start}: pass text "
                "that was decoded from UTF-8."
            ) from error
        with self._lock:
            self._backend.encode_special_tokens = True
            try:
                found = self._backend.encode(text, add_special_tokens=False)
            finally:
                self._backend.encode_special_tokens = False
        pairs = [(token, (start, end)) for token, (start, end) in zip(found.ids, found.offsets, strict=True)]
        for token, (start, end) in pairs:
            # Tokens that were added without being called special are still found: such a text is read in two
            # parts, cut behind the first letter of the token.
            if token in self._added and end - start > 1:
                first, rest = self._plain(text[: start + 1]), self._plain(text[start + 1 :])
                return first + [(token, (start + 1 + a, start + 1 + b)) for token, (a, b) in rest]
        return pairs

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Text of token ids.

        Args:
            ids: Token ids, not negative. Ids without a token (models pad their vocabulary) give nothing.
            skip_special: Leave out special tokens.

        Returns:
            The text; bytes that are not UTF-8 become U+FFFD.
        """
        return self._backend.decode(list(ids), skip_special_tokens=skip_special)

    def token_id(self, token: str) -> int:
        """Id of one token, special or not.

        Raises:
            CheckpointError: The tokenizer has no such token.
        """
        found = self._backend.token_to_id(token)
        if found is None:
            raise CheckpointError(
                f"The tokenizer in {self._origin} lacks the token {token!r}, which this model needs: use the "
                "tokenizer that belongs to the checkpoint."
            )
        return found

    def token_bytes(self, id_: int) -> bytes:
        """Bytes that a token stands for, which may be half a character; none for an id without a token."""
        token = self._backend.id_to_token(id_)
        return b"" if token is None else _token_bytes(token)

    def stream_decoder(self, skip_special: bool = False) -> "StreamDecoder":
        """A decoder for ids that arrive one by one.

        Args:
            skip_special: Leave out special tokens.
        """
        return StreamDecoder(self._backend, skip_special)


class StreamDecoder:
    """Text increments of a growing sequence of token ids, never half a character.

    The increments and the rest from `finish` joined together equal `TextTokenizer.decode` of all ids.
    """

    def __init__(self, backend: Tokenizer, skip_special: bool = False) -> None:
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        self._skipped = {id_ for id_, token in added.items() if token.special} if skip_special else set()
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        """Take one id and return the text that is now certain, often one word, possibly nothing."""
        token = self._backend.id_to_token(token_id)
        if token is None or token_id in self._skipped:
            return ""
        return self._utf8.decode(_token_bytes(token))

    def finish(self) -> str:
        """What is left when no id will follow: U+FFFD if the last character is incomplete, else nothing."""
        return self._utf8.decode(b"", final=True)


def _byte_alphabet() -> dict[str, int]:
    """The characters with which byte-level tokenizers write the 256 bytes (GPT-2's alphabet)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + place): byte for place, byte in enumerate(others)})
    return alphabet


_BYTES = _byte_alphabet()


def _token_bytes(token: str) -> bytes:
    """The bytes a token stands for; one with characters outside the alphabet stands for itself."""
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:
        return token.encode()


def _read_tokenizer_json(path: Path) -> Tokenizer:
    """Read a tokenizer.json."""
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing narrower on a malformed file
        raise CheckpointError(f"The tokenizer {path} cannot be read: {error}. Download it again.") from error


def _read_vocabulary_and_merges(folder: Path) -> Tokenizer:
    """Read a Qwen2 tokenizer in its older two-file form."""
    from transformers import Qwen2Tokenizer

    try:
        return Qwen2Tokenizer.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
    except Exception as error:  # the libraries raise nothing narrower on malformed files
        raise CheckpointError(
            f"The tokenizer in {folder} cannot be read: {error}. Download it again."
        ) from error
