"""Small elements that several pages use."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

from nicegui import ui

from cluster.dashboard.terms import TERMS

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
E = TypeVar("E", bound=ui.element)
_KINDS = (("F", "forward", 14), ("I", "input gradient", 11), ("W", "weight gradient", 7))
SHORT = 32  # a cell's text of at most so many characters stays on one line


def text(tag: str, content: str = "") -> ui.label:
    """Make a label with this tag."""
    label = ui.label(content)
    label.tag = tag
    return label


def term(tag: str, word: str) -> ui.element:
    """Make a word. If it is in TERMS, it is underlined and shows its explanation on hover, focus and touch. In a group
    with the class `terms`, Tab reaches one word, and the arrow keys reach the others (dashboard.js)."""
    if word not in TERMS:
        return text(tag, word)
    with ui.element(tag) as place:
        explained(text("span", word), TERMS[word]).classes("term").props("tabindex=-1")
    return place


def explained(element: E, content: str) -> E:
    """Give an element an explanation, which a box beside it shows on hover, focus and touch. An empty text removes
    it."""
    if element.props.get("data-tip", "") != content:
        element.props["data-tip"] = content
        if not content:
            del element.props["data-tip"]
        element.update()
    return element


def copy_button(content: str, what: str) -> ui.element:
    """Make a button that copies the text to the clipboard."""
    button = text("button").classes("copy").props(f'type=button aria-label="Copy {what}"')
    button.props["data-copy"] = content
    button.on("click", js_handler="(event) => pipetrain.copy(event.currentTarget)")
    return button


def facts(*names: str) -> Callable[[Sequence[str]], None]:
    """Make figures with their names above. Call the result with new figures; an empty one hides its name too."""
    with ui.element("dl").classes("facts terms"):
        places = []
        for name in names:
            with ui.element("div") as both:
                term("dt", name)
                places.append((both, text("dd")))

    def show(values: Sequence[str]) -> None:
        for (both, place), value in zip(places, values, strict=True):
            place.set_text(value)
            both.set_visibility(bool(value))

    return show


class Rows(Generic[K, T]):
    """Elements with keys. An element stays the same as long as its key is shown, at any place: the keyboard's focus, a
    selection and a half-made click on it are not lost. `make` returns the element of a key, and a handle to fill it."""

    def __init__(self, place: ui.element, make: Callable[[K], tuple[ui.element, T]]) -> None:
        self._place, self._make = place, make
        self._rows: dict[K, tuple[ui.element, T]] = {}

    def show(self, keys: Sequence[K]) -> list[T]:
        """Show the elements of these keys, in this order, and return their handles."""
        for key in self._rows.keys() - set(keys):
            self._rows.pop(key)[0].delete()
        for i, key in enumerate(keys):
            if key not in self._rows:
                with self._place:
                    self._rows[key] = self._make(key)
            element = self._rows[key][0]
            if self._place.default_slot.children[i] is not element:
                element.move(target_index=i)
        return [self._rows[key][1] for key in keys]


def table(*columns: str) -> ui.element:
    """Make a table with these headings and return its body, for `fill_table`."""
    with ui.element("div").classes("scroll"), ui.element("table").classes("table"):
        with ui.element("thead"), ui.element("tr").classes("terms"):
            for column in columns:
                term("th", column).props("scope=col")
        body = ui.element("tbody")
        body.props["data-columns"] = "\n".join(columns)
        return body


def cell(body: ui.element, column: int) -> ui.label:
    """Make a cell of a table's row. On a phone, where rows are cards, the cell begins with its column's name."""
    found = text("td")
    found.props["data-column"] = str(body.props["data-columns"]).split("\n")[column]
    return found


def fill_table(body: ui.element, rows: Sequence[Sequence[str]]) -> None:
    """Put the texts into the cells and make or remove rows as needed. Texts that have not changed are not sent."""
    for place in list(body)[len(rows) :]:
        place.delete()
    with body:
        for _ in rows[len(list(body)) :]:
            ui.element("tr")
    for place, row in zip(body, rows, strict=True):
        if len(list(place)) != len(row):
            place.clear()
            with place:
                for column, content in enumerate(row):
                    set_cell(cell(body, column), content)
        for label, wanted in zip(place, row, strict=True):
            if isinstance(label, ui.label) and label.text != wanted:
                set_cell(label, wanted)


def set_cell(place: ui.label, content: str) -> None:
    """Put a text into a table's cell."""
    place.set_text(content)
    place.classes(replace="short" if len(content) <= SHORT else "")


def problems_list(on_line: Callable[[int], None] | None = None) -> Callable[[Iterable[object]], None]:
    """Make a list of problems. Call the result with the problems; one with a line gets a button that calls
    `on_line`."""
    with ui.element("div").props("role=alert") as place:
        pass

    def show(problems: Iterable[object]) -> None:
        place.clear()
        found = list(problems)
        if not found:
            return
        with place, ui.element("ul").classes("problems"):
            for problem in found:
                line = getattr(problem, "line", None)
                with ui.element("li"):
                    if line is None or on_line is None:
                        ui.label(str(problem)).style("display: inline")
                        continue
                    button = text("button", f"line {line}").props("type=button")
                    button.on("click", lambda line=line: on_line(line))
                    ui.label(f": {getattr(problem, 'text', '')}").style("display: inline")

    return show


def key(name: str, style: str, classes: str = "") -> None:
    """Make an entry of a legend: a sample of a colour or form, and its name."""
    with ui.element("span").classes("key small muted"):
        ui.element("i").classes(classes).style(style)
        term("span", name)


def kinds_key() -> None:
    """Make the legend of a pipeline's picture: the heights of the bars, and the bubble."""
    for letter, name, height in _KINDS:
        key(f"{letter} {name}", f"height: {height}px")
    key("bubble: the worker waits", "height: 14px", "bubble")
