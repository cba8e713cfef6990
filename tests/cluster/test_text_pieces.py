"""A text is made into tokens piece by piece: the same tokens as those of the whole text, and the same errors."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.data import temporary
from cluster.data.sources import load_data
from cluster.data.texts import pieces, tokenizer
from cluster.data.texts.loading import Vocabulary, target_bytes
from cluster.data.texts.pieces import TextPieces, cut_after_lines
from coordinator.job.spec import parse_job
from stages.errors import InvalidData
from stages.file_numbers import FileNumbers

texts = st.text(st.sampled_from("ab \n\r\té€𝄞\ufeff\u2028'1.,"), min_size=1, max_size=40)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of three bytes, and tokens on disk from 16 bytes on."""
    monkeypatch.setattr(pieces, "_PART", 3)
    monkeypatch.setattr(temporary, "LARGE", 16)


def read(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with TextPieces(str(path), None) as text:
        found = "".join(text)
        assert "".join(text) == found  # it can be read again
        return found


@given(texts, st.integers(1, 5))
def test_pieces_are_the_text(text: str, part: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_PART", part)
        assert read(Path(folder) / "a.txt", text.encode("utf-8-sig")) == text
        lines = [text, "", text[::-1]]
        written = "\n\n".join(json.dumps({"text": line}, ensure_ascii=False) for line in lines)
        assert read(Path(folder) / "a.jsonl", written.encode()) == "\n".join(lines)


@given(st.binary(max_size=12), st.integers(1, 4))
def test_bytes_that_are_no_text_give_the_error_of_the_whole_file(content: bytes, part: int) -> None:
    try:
        wanted = content.decode("utf-8-sig")
        told = None if wanted else "is empty"
    except UnicodeDecodeError as error:
        told = f"is not text in UTF-8: {error.reason} at byte {error.start}"
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_PART", part)
        if told is None:
            assert read(Path(folder) / "a.txt", content) == wanted
            return
        with pytest.raises(InvalidData) as raised:
            read(Path(folder) / "a.txt", content)
        assert str(raised.value).endswith(f"a.txt: {told}")


def _load(source: Path, **data: Any) -> Any:
    return load_data(
        parse_job(
            {
                "model": {
                    "layers": [{"embedding": {"units": 8}}, "positions", {"linear": {"units": "classes"}}],
                    "loss": "cross_entropy",
                },
                "data": {"source": str(source), "block": 8, "validation": 0.1, **data},
                "training": {"steps": 4, "batch_size": 4, "optimizer": {"sgd": {"learning_rate": 0.01}}},
            }
        )
    )


TEXT = "the cät sat on\nthe mat.\n  The dög sat – here.\n\n" * 9


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_tokens_on_disk_are_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, tokens: str
) -> None:
    source = tmp_path / f"a.{kind}"
    source.write_text(TEXT if kind == "txt" else "\n".join(json.dumps({"text": line}) for line in TEXT.split("\n")))
    held = _load(source, tokens=tokens)
    monkeypatch.setattr(pieces, "_PART", 5)
    monkeypatch.setattr(temporary, "LARGE", 64)
    stored = _load(source, tokens=tokens)
    assert isinstance(stored.train.x.tokens, FileNumbers)
    assert isinstance(held.train.x.tokens, np.ndarray)
    assert (stored.fingerprint(), stored.vocabulary) == (held.fingerprint(), held.vocabulary)
    assert stored.train.x[:].tolist() == held.train.x[:].tolist()
    assert target_bytes(stored.validation, stored.vocabulary) == target_bytes(held.validation, held.vocabulary)
    assert stored.nbytes == 0
    assert held.nbytes >= len(TEXT)
    assert "without a name" in "\n".join(stored.said)
    assert "without a name" not in "\n".join(held.said)


@pytest.mark.usefixtures("small")
def test_an_unknown_character_is_told_with_its_place_in_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_text("the mat, the cat" * 9 + TEXT)
    with pytest.raises(InvalidData, match=r"b.txt: character ',' at position 8 is not in the vocabulary of"):
        _load(tmp_path / "a.txt", validation=str(tmp_path / "b.txt"))


def test_a_text_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    with TextPieces(str(tmp_path / "a.txt"), None) as text:
        list(text)
        (tmp_path / "a.txt").write_text("abcd")
        with pytest.raises(InvalidData, match="was changed while it was in use"):
            list(text)


def _tokenizer(pre_tokenizer: Any, model: Any, trainer: Any) -> Any:
    from tokenizers import Tokenizer

    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizer
    made.train_from_iterator([TEXT], trainer)
    return made


@pytest.fixture(scope="module")
def byte_level() -> Any:
    """A tokenizer as GPT-2's."""
    pytest.importorskip("tokenizers", reason="pip install 'pipetrain[text]'")
    from tokenizers import models, pre_tokenizers, trainers

    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"])
    return _tokenizer(words, models.BPE(), trainer)


@given(texts=st.lists(texts, min_size=1, max_size=8))
@settings(max_examples=200)
def test_pieces_have_the_tokens_of_the_whole_text(byte_level: Any, texts: list[str]) -> None:
    content = byte_level.to_str()
    assert tokenizer.can_cut(content)
    cut = list(cut_after_lines(texts))
    assert "".join(cut) == "".join(texts)
    vocabulary = Vocabulary("tokenizer", tokenizer.size_of(content, "t.json"), tokenizer=content)
    found = [token for piece in cut for token in vocabulary.encode(piece, "a.txt").tolist()]
    assert found == byte_level.encode("".join(texts), add_special_tokens=False).ids


def test_a_text_is_cut_at_its_lines() -> None:
    assert list(cut_after_lines(["ab\ncd\nef", "g\n\nh i\n", "j\nk"])) == ["ab\ncd\n", "efg\n\nh i\nj\n", "k"]


def test_tokenizers_that_may_look_further_get_the_whole_text(byte_level: Any) -> None:
    from tokenizers import models, normalizers, pre_tokenizers, trainers

    assert not tokenizer.can_cut("{}")
    other = _tokenizer(pre_tokenizers.Metaspace(), models.BPE(), trainers.BpeTrainer(vocab_size=99))
    assert not tokenizer.can_cut(other.to_str())
    other = _tokenizer(pre_tokenizers.Whitespace(), models.BPE(), trainers.BpeTrainer(vocab_size=99))
    assert tokenizer.can_cut(other.to_str())
    other.normalizer = normalizers.NFKC()
    assert not tokenizer.can_cut(other.to_str())
    other = _tokenizer(pre_tokenizers.Whitespace(), models.Unigram(), trainers.UnigramTrainer(vocab_size=99))
    assert not tokenizer.can_cut(other.to_str())


def test_a_large_text_takes_no_more_memory_than_a_piece(tmp_path: Path) -> None:
    """Of 48 MiB of text, each process once held several times as much."""
    source = tmp_path / "a.txt"
    source.write_bytes(b"".join([TEXT.encode() * 100] * (48 * 2**20 // (100 * len(TEXT.encode())))))
    script = (
        "import resource\n"
        "from cluster.data import temporary\n"
        "from tests.cluster.test_text_pieces import _load, Path\n"
        "temporary.LARGE = 2**20\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"data = _load(Path({str(source)!r}))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 40 * 1024  # KiB
