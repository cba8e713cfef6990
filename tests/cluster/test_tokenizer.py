"""Texts by a tokenizer.json: their tokens are all of the text and nothing else; damaged files are one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.data.texts.loading import Vocabulary, read_tokenizer
from stages.errors import InvalidData

pytest.importorskip("tokenizers", reason="pip install 'pipetrain[text]'")

WORDS = {"type": "WordLevel", "vocab": {"hello": 0, "world": 1, "[UNK]": 2}, "unk_token": "[UNK]"}


def _content(**entries: Any) -> str:
    names = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    plain: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        **dict.fromkeys(names),
        "pre_tokenizer": {"type": "Whitespace"},
    }
    return json.dumps({**plain, "model": WORDS, **entries})


def _read(folder: Path, **entries: Any) -> Vocabulary:
    (folder / "t.json").write_text(_content(**entries))
    return read_tokenizer(str(folder / "t.json"))


def _added(number: int) -> list[dict[str, Any]]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [{"id": number, "content": "<end>", "special": True, **flags}]


@pytest.mark.parametrize(
    "entries",
    [
        {"truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}},
        {
            "padding": {
                "strategy": {"Fixed": 9},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 2,
                "pad_type_id": 0,
                "pad_token": "[UNK]",
            }
        },
        {"post_processor": {"type": "BertProcessing", "sep": ["x", 4_294_967_294], "cls": ["y", 4_294_967_295]}},
    ],
    ids=["truncation", "padding", "special tokens"],
)
def test_a_text_has_all_of_its_tokens_and_no_others(tmp_path: Path, entries: dict[str, Any]) -> None:
    vocabulary = _read(tmp_path, **entries)
    assert vocabulary.size == 3
    assert vocabulary.encode("hello world hello world other", "a.txt").tolist() == [0, 1, 0, 1, 2]


def test_the_size_is_that_of_the_largest_number(tmp_path: Path) -> None:
    vocabulary = _read(tmp_path, model={**WORDS, "vocab": {"hello": 0, "world": 1000, "[UNK]": 2}})
    assert vocabulary.size == 1001
    assert vocabulary.encode("hello world", "a.txt").tolist() == [0, 1000]
    assert vocabulary.decode(np.array([0, 500, 1000])) == "hello world"
    assert _read(tmp_path, added_tokens=_added(3)).size == 4
    with pytest.raises(InvalidData, match=r"t\.json: its token 4000000000 is too large, must be below 2,147,483,647$"):
        _read(tmp_path, model={**WORDS, "vocab": {"hello": 0, "world": 4_000_000_000, "[UNK]": 2}})


def test_a_token_beyond_the_size_is_refused() -> None:
    """A run may name another size than its tokenizer has."""
    vocabulary = Vocabulary("tokenizer", 2, tokenizer=_content())
    with pytest.raises(InvalidData, match=r"^a\.txt: the tokenizer gives the token 2, must be below 2, its size$"):
        vocabulary.encode("hello other", "a.txt")


PANICS = {"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}}


def test_an_error_of_the_library_is_one_line(tmp_path: Path) -> None:
    """Also a panic of its Rust code, which Python does not see as an Exception."""
    with pytest.raises(InvalidData) as told:
        _read(tmp_path, **PANICS)
    assert str(told.value).startswith(f"{tmp_path}/t.json: is no tokenizer.json: Precompiled")
    damaged = Vocabulary("tokenizer", 3, tokenizer=_content(**PANICS))
    for use in (
        lambda: damaged.encode("a", "a.txt"),
        lambda: damaged.decode(np.array([0])),
        lambda: damaged.number_of("a"),
    ):
        with pytest.raises(InvalidData, match=r"^the run's tokenizer: is no tokenizer\.json: Precompiled") as told:
            use()
        assert len(str(told.value).splitlines()) == 1
    (tmp_path / "t.json").write_bytes(_content().encode() + b"\xff")
    with pytest.raises(InvalidData, match=r"t\.json: is no tokenizer\.json: invalid start byte at byte \d+$"):
        read_tokenizer(str(tmp_path / "t.json"))


def test_an_older_run_names_a_path_but_its_own_tokenizer_is_read(tmp_path: Path) -> None:
    """A path from elsewhere must not lead out of the run directory."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere" / "own.json").write_text("of somebody else")
    (tmp_path / "run" / "own.json").write_text(_content())
    for kind in (f"{tmp_path}/elsewhere/own.json", "../elsewhere/own.json", "own.json"):
        document = {"tokens": kind, "size": 3, "characters": ""}
        assert Vocabulary.from_document(document, tmp_path / "run").tokenizer == _content()
