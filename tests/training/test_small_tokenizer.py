"""The tokenizer of the model for photographs: names of things are tokens, words it does not know are not."""

import pytest
from tokenizers import Tokenizer

from g2vlm.data.questions.phrasing.vocabulary import UNKNOWN_HELD_OUT, UNKNOWN_TRAINING, unknown_words
from g2vlm.data.world.furniture import CATALOGUE
from g2vlm.data.world.photo.nouns import NOUNS
from g2vlm.training.recipes.tiny import SMALL_VOCABULARY, tiny_lines, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = train_tokenizer(tiny_lines(20), tmp_path_factory.mktemp("tokenizer"), SMALL_VOCABULARY)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def pieces(tokenizer, words):
    return {word: len(tokenizer.encode(f" {word}").tokens) - word.count(" ") for word in words}


def test_names_of_the_world_are_whole(tokenizer):
    counted = pieces(tokenizer, {*NOUNS, *CATALOGUE})
    assert sum(count == 1 for count in counted.values()) >= 0.95 * len(counted)


@pytest.mark.parametrize("words", [UNKNOWN_TRAINING, UNKNOWN_HELD_OUT])
def test_words_that_it_does_not_know_fall_into_pieces(tokenizer, words):
    counted = pieces(tokenizer, unknown_words(words, {*NOUNS, *CATALOGUE}))
    assert sum(count == 1 for count in counted.values()) <= 0.05 * len(counted)


def test_the_vocabulary_is_that_of_the_network(tokenizer):
    assert tokenizer.get_vocab_size() == SMALL_VOCABULARY
