"""A vocabulary as a tokenizer.json, which the `tokenizers` library and all that stands on it read."""

from __future__ import annotations

from cluster.data.texts.loading import Vocabulary
from stages.errors import InvalidData


def tokenizer_json(vocabulary: Vocabulary) -> str:
    """Return the content of the file; nothing for plain token numbers. Raises InvalidData without the library."""
    if vocabulary.tokenizer or vocabulary.kind not in ("characters", "bytes"):
        return vocabulary.tokenizer
    try:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers  # an optional extra
    except ImportError:
        raise InvalidData("a tokenizer.json needs a package: pip install 'pipetrain[text]'") from None
    if vocabulary.kind == "characters":
        made = Tokenizer(models.WordLevel({character: n for n, character in enumerate(vocabulary.characters)}))
        made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
        made.decoder = decoders.Fuse()
    else:
        made = Tokenizer(models.BPE({_sign(byte): byte for byte in range(256)}, merges=[]))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
    return str(made.to_str())


def _sign(byte: int) -> str:
    """The character that the library has for a byte: itself if it can be seen, else one from U+0100 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return chr(byte if byte in seen else 0x100 + sum(b not in seen for b in range(byte)))
