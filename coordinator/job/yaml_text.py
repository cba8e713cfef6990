"""Reads and writes the YAML of job files: plain values as in YAML 1.2, doubled keys reported, one line a mistake.

YAML 1.1, which PyYAML follows by default, reads `1e-3` as text, `no` as false and `1:30` as 90. Here `1e-3` is a
number, only `true` and `false` are truth values, and tags can make only text, numbers, lists and mappings.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar

import yaml
from yaml.composer import Composer

from coordinator.job.limits import MAX_DEPTH, MAX_ENTRIES, MAX_PROBLEMS, document_problem, encodable

_MERGE = "tag:yaml.org,2002:merge"
_PLAIN = {
    "tag:yaml.org,2002:null": (r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    "tag:yaml.org,2002:int": (r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    "tag:yaml.org,2002:float": (
        r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    _MERGE: (r"<<", ["<"]),
}
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}


_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser is many times faster; but PyYAML may be built without it."""
_Emitter: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Loader(Composer, _Parser):  # type: ignore[misc]  # builds the nodes itself, from the parser's events
    """PyYAML's safe loader with the plain values of YAML 1.2, and limits on the number and depth of nodes."""

    def __init__(self, text: str) -> None:
        _Parser.__init__(self, text)
        Composer.__init__(self)
        self._nodes = self._depth = self._merged = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node. Raises ComposerError if there are too many, or one is too deep."""
        self._nodes += 1
        self._depth += 1
        if self._nodes > 2 * MAX_ENTRIES or self._depth > MAX_DEPTH + 1:
            what = f"it has more than {MAX_ENTRIES:,} entries"
            if self._depth > MAX_DEPTH:
                what = f"it has lists or mappings more than {MAX_DEPTH} deep within each other"
            raise yaml.composer.ComposerError(None, None, what, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put the pairs that `<<` names before the mapping's own. Raises ConstructorError if these are too many."""
        own, merged = [], list[Any]()
        for key, value in node.value:
            if key.tag != _MERGE:
                own.append((key, value))
                continue
            for source in reversed(value.value) if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    raise yaml.constructor.ConstructorError(None, None, "<< takes mappings", source.start_mark)
                self.flatten_mapping(source)
                self._merged += len(source.value)
                if self._merged > MAX_ENTRIES:
                    what = f"<< brings more than {MAX_ENTRIES:,} entries"
                    raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
                merged += source.value
        node.value = merged + own

    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }


class _Dumper(_Emitter):  # type: ignore[misc]
    """PyYAML's safe dumper. It quotes text that YAML 1.1 or 1.2 would read as another type."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write out a list each time it occurs, without aliases."""
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Put text with a line break of any kind into double quotes: only they escape all kinds."""
        style = '"' if set(data) & set("\n\r\x85\u2028\u2029") else None
        node: yaml.ScalarNode = self.represent_scalar("tag:yaml.org,2002:str", data, style=style)
        return node


_Dumper.add_representer(str, _Dumper.represent_str)


_Loader.yaml_implicit_resolvers = {}
for _tag, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)
    _Dumper.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float | str:
    text = str(loader.construct_scalar(node)).replace("_", "")
    try:
        if node.tag.endswith(":int"):
            return int(text)
        return float(_SPECIAL.get(text.lower(), text))
    except ValueError:
        raise yaml.constructor.ConstructorError(
            None, None, "is not a number that can be read", node.start_mark
        ) from None


def _truth(loader: _Loader, node: yaml.ScalarNode) -> bool | str:
    text = str(loader.construct_scalar(node))
    return text.lower() == "true" if text.lower() in ("true", "false") else text


_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_Loader.add_constructor("tag:yaml.org,2002:bool", _truth)


def read_document(text: str) -> tuple[object, list[str]]:
    """Like `read_yaml`, for a whole job. If it is JSON, it is read as JSON: faster, and with JSON's escapes."""
    if text.lstrip().startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text, object_pairs_hook=_single, parse_constant=_no_constant), []
    return read_yaml(text)


def read_yaml(text: str) -> tuple[object, list[str]]:
    """Return the document and its problems: the place of a syntax error (then the document is None), and doubled
    keys."""
    if problem := document_problem(text):
        return None, [problem]
    if not encodable(text):
        return None, ["contains half of a surrogate pair, which UTF-8 cannot encode"]
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, []
        doubled = list(islice(_doubled_keys(node, "", set()), MAX_PROBLEMS))
        return loader.construct_document(node), doubled
    except yaml.MarkedYAMLError as error:
        return None, [_marked(error)]
    except yaml.reader.ReaderError as error:
        wrong = error.character if isinstance(error.character, str) else chr(error.character)
        line = text.count("\n", 0, max(0, text.find(wrong))) + 1
        return None, [f"line {line}: holds a character that YAML does not allow ({wrong!r})"]
    except (RecursionError, ValueError, TypeError) as error:
        return None, [
            f"cannot be read as YAML: {'it is nested too deeply' if isinstance(error, RecursionError) else error}"
        ]
    finally:
        if loader is not None:
            loader.dispose()


def nodes_of(text: str) -> yaml.Node | None:
    """Return the root of the text's nodes, each of which has its place; None if the text is not YAML."""
    if document_problem(text):
        return None
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError):
        return None


def write_yaml(document: object) -> str:
    """Return the document as YAML with its keys in their order; `read_yaml` reads it back."""
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))


def _marked(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    what = " ".join(part for part in (error.context, error.problem) if part)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return " ".join(f"{place}{what}".split())


def _doubled_keys(node: yaml.Node, path: str, seen: set[int]) -> Iterator[str]:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            yield from _doubled_keys(entry, f"{path}[{index}]", seen)
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            here = f"{path}.{name}" if path else name
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and name in lines and name != "<<":
                yield " ".join(f"{here}: given twice, in lines {lines[name]} and {line}; keep one".split())
            lines.setdefault(name, line)
            yield from _doubled_keys(value, here, seen)


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError for a doubled key, so that `read_yaml` reports its lines."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)
