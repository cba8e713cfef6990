"""Text that is decoded token by token equals the text of all tokens."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.data.texts.loading import Vocabulary
from cluster.data.texts.written_text import WrittenText

TEXT = "Ein Café, 東京, 𝄞 and plain words; éèê"


def _written(vocabulary: Vocabulary, tokens: list[int], prompt: int) -> str:
    text = WrittenText(vocabulary, tokens[:prompt])
    return "".join(map(text.take, tokens[prompt:])) + text.rest()


def test_characters_of_several_bytes_come_whole() -> None:
    vocabulary, tokens = Vocabulary("bytes", 256), list(TEXT.encode())
    pieces = WrittenText(vocabulary, tokens[:3])
    found = [pieces.take(token) for token in tokens[3:]]
    assert "".join(found) == TEXT[3:]
    assert "\ufffd" not in "".join(found)
    assert _written(vocabulary, list("aé".encode())[:-1], 1) == "\ufffd"


def test_characters_and_numbers() -> None:
    characters = "".join(sorted(set(TEXT)))
    assert (
        _written(Vocabulary("characters", len(characters), characters), list(map(characters.index, TEXT)), 4)
        == TEXT[4:]
    )
    assert _written(Vocabulary("numbers", 90), [3, 14, 15], 1) == " 14 15"


def test_tokens_of_a_tokenizer_are_decoded_with_their_neighbours() -> None:
    pytest.importorskip("tokenizers", reason="pip install 'pipetrain[text]'")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["plain words and more words"], trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet)
    )
    vocabulary = Vocabulary("tokenizer", tokenizer.get_vocab_size(), tokenizer=tokenizer.to_str())
    text = TEXT * 4
    tokens = vocabulary.encode(text, "test").tolist()
    assert len(tokens) > 60
    for prompt in (1, 5, 28):
        start = vocabulary.decode(np.array(tokens[:prompt]))
        assert not start.endswith("\ufffd")
        assert _written(vocabulary, tokens, prompt) == text[len(start) :]
