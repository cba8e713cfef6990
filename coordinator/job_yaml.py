"""Reading and writing the YAML of job files: YAML 1.2's plain values, doubled keys found, mistakes in one line each.

YAML 1.1, which PyYAML follows by default, reads `1e-3` as text, `no` as false and `1:30` as 90. Here `1e-3` is a
number, only `true` and `false` are truth values, and no tag makes anything but text, numbers, lists and mappings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

import yaml

_PLAIN = {
    "tag:yaml.org,2002:null": (r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    "tag:yaml.org,2002:int": (r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    "tag:yaml.org,2002:float": (
        r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    "tag:yaml.org,2002:merge": (r"<<", ["<"]),
}
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the plain values of YAML 1.2."""

    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper; quotes text that either version of YAML would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal lists out instead of naming them."""
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Text with a line break of any kind goes into double quotes, which alone escape all of them."""
        style = '"' if set(data) & set("\n\r\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


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


def read_yaml(text: str) -> tuple[object, list[str]]:
    """The document and its problems: where the syntax breaks (then the document is None), and keys given twice."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, []
            doubled = list(_doubled_keys(node, "", set()))
            return loader.construct_document(node), doubled
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        return None, [_marked(error)]
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return None, [
            f"line {line}: holds a character that YAML does not allow ({text[error.position : error.position + 1]!r})"
        ]
    except (RecursionError, ValueError, TypeError) as error:
        return None, [
            f"cannot be read as YAML: {'it is nested too deeply' if isinstance(error, RecursionError) else error}"
        ]


def write_yaml(document: object) -> str:
    """The document as YAML in the given order of keys; `read_yaml` gives it back."""
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
