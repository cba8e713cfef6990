"""Folders of images by class: each subfolder has the images of one class and is called as it."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np

from cluster.data.array_files import FileArray
from cluster.data.content import AnyArray, Arrays
from cluster.data.opening import one_line
from cluster.data.temporary import GrowingNumbers
from coordinator.texts import counted
from stages.errors import InvalidData
from stages.file_numbers import FileNumbers

MOST_PROBLEMS = 20
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}
"""How the pixels of an image are read, by how Pillow finds them stored; others are a problem."""
_SHARES = (np.arange(256) / 255).astype(np.float32)
Opener = Callable[[str], IO[bytes]]


def read_images(paths: Sequence[str], insides: Sequence[str], source: str, opened: Opener) -> Arrays:
    """Return x (rows, channels · height · width) float32, pixels / 255, and y, the numbers of the classes in sorted
    order. If all images are in the folder itself, they have no classes, and y is None.

    `insides` are the paths in the folder; rows follow them in their order. Raises InvalidData with a line for each
    image that is not in a folder of its class, cannot be read, or has another size or other channels than most.
    """
    from PIL import UnidentifiedImageError

    folders = [os.path.dirname(inside) for inside in insides]
    problems = [
        f"{path}: must be in a folder of its class, such as {source}cats/{os.path.basename(path)}"
        for path, folder in zip(paths, folders, strict=True)
        if any(folders) and (not folder or os.sep in folder)
    ]
    _raise_any(problems, source)
    classes = tuple(sorted(set(folders)))
    shapes, rows = [], GrowingNumbers(source)
    for path in paths:
        try:
            with opened(path) as file:
                image = _pixels(file)
        except InvalidData as error:
            problems += error.problems
            continue
        except UnidentifiedImageError:
            problems.append(f"{path}: cannot be read as an image: it is of no known format, or damaged")
            continue
        except Exception as error:  # Pillow raises errors of many types for a broken file
            problems.append(f"{path}: cannot be read as an image: {one_line(error)}")
            continue
        shapes.append((path, image.shape))
        if image.shape == shapes[0][1]:  # any other is a problem
            rows.append(_SHARES[image.reshape(-1)])
    shape = Counter(one for _, one in shapes).most_common(1)[0][0] if shapes else (0, 0, 0)
    others = [(path, one) for path, one in shapes if one != shape]
    problems += [f"{path}: is {_shown(one)}, but most images are {_shown(shape)}; make it so" for path, one in others]
    _raise_any(problems, source)
    numbers = {name: k for k, name in enumerate(classes)}
    found = rows.finish()
    x = FileArray(numbers=found, shape=(len(paths), math.prod(shape))) if isinstance(found, FileNumbers) else found
    return Arrays(
        x=x.reshape(len(paths), -1) if isinstance(x, np.ndarray) else x,
        y=np.array([numbers[folder] for folder in folders], dtype=np.int64) if any(folders) else None,
        shape=tuple(map(int, shape)),
        classes=classes if any(folders) else None,
        said=(f"{counted(len(paths), 'image')} of {_shown(shape)}; pixels from 0 to 255 are divided by 255",),
    )


def _pixels(file: IO[bytes]) -> AnyArray:
    """Return an image as (channels, height, width) uint8."""
    from PIL import Image

    with Image.open(file) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError("it has several frames; save one of them")
        mode = "RGBA" if image.mode == "P" and "transparency" in image.info else _MODES.get(image.mode)
        if mode is None:
            raise ValueError(f"its pixels are stored as {image.mode}; save it with 8 bits, in grey, RGB or RGBA")
        found: Any = np.asarray(image if image.mode == mode else image.convert(mode))
    return np.ascontiguousarray(found[None] if found.ndim == 2 else np.moveaxis(found, 2, 0))


def _shown(shape: Sequence[int]) -> str:
    return f"{counted(shape[0], 'channel')} of {shape[1]} × {shape[2]} pixels"


def _raise_any(problems: list[str], source: str) -> None:
    if len(problems) > MOST_PROBLEMS:
        problems[MOST_PROBLEMS:] = [f"{source}: and {len(problems) - MOST_PROBLEMS:,} more images"]
    if problems:
        raise InvalidData("\n".join(problems))
