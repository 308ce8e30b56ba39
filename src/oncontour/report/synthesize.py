"""The page of ``oncontour synthesize``: CT and made image side by side, blended and as difference of edges, figures, drift and warnings.

text = page(record, pictures(ct, made))      one HTML file that needs no network; ``record`` is what synthesize.json holds
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from oncontour.core.geometry import Geometry
from oncontour.core.resample import Array
from oncontour.core.volume import Volume
from oncontour.ops.body import body_mask
from oncontour.report import Record
from oncontour.synthesize.fidelity import gradient

MOST_SLICES, ACROSS = 60, 320
"""Slices in a page, evenly chosen, and pixels along the longer side of each."""
GREY_HU = (-160.0, 240.0)
_SOFT_HU = (-200.0, 200.0)
_AROUND_MM = 10.0
Bytes = NDArray[np.uint8]

FIGURES = (
    ("body_dice", "Outline", "Dice of the patient's outlines in CT and made image; 1 is the same"),
    ("gradient_correlation", "Edges", "correlation of the gradients of CT (-200 to 200 HU) and made image; 1 has all edges in place"),
    ("nmi", "Mutual information", "normalised: 1 has nothing in common, 2 tells each from the other"),
    ("checkerboard", "Checkerboard", "part of the finest detail that repeats with the generator's stride; 0 is none"),
    ("flicker", "Flicker", "signal by which neighbouring slices differ where the CT does not, in parts of fat's"),
    ("fat_over_muscle", "Fat over muscle", "brightness; above 1 in a T1-weighted image"),
)
"""(key in the record, name, meaning)."""


@dataclass(frozen=True)
class Slice:
    """One axial slice as PNG in base64: both images, and where one of them has the stronger edge."""

    number: int
    z_mm: float
    ct: str
    made: str
    edges: str


def pictures(ct: Volume, made: Volume) -> list[Slice]:
    """Slices of both images, which lie on one grid, about the patient, from inferior to superior."""
    grid = _shown(ct)
    on, image = ct.to(grid, fill=-1000.0), Volume(made.array.astype(np.float32, copy=False), made.geometry).to(grid)
    ends = (0.0, max(1e-6, float(np.percentile(image.array[image.array > 0], 98)) if (image.array > 0).any() else 1.0))
    wanted = np.unique(np.linspace(0, grid.shape[0] - 1, min(grid.shape[0], MOST_SLICES)).round().astype(int))
    edges = _edges(on, on.array[wanted], image.array[wanted])
    return [
        Slice(
            int(k) + 1,
            float(grid.points((k, 0, 0))[2]),
            _png(_grey(on.array[k], GREY_HU)),
            _png(_grey(image.array[k], ends)),
            _png(edges[n]),
        )
        for n, k in enumerate(wanted)
    ]


def page(record: Record, slices: Sequence[Slice]) -> str:
    """The HTML. It says nothing that ``record`` does not say, but for the images."""
    from jinja2 import Environment, select_autoescape
    from markupsafe import Markup

    def part(name: str) -> str:
        return files("oncontour.report").joinpath(name).read_text(encoding="utf-8")

    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(part("synthesize.html")).render(
        record=record,
        figures=[_figure(record, *one) for one in FIGURES],
        slices=slices,
        middle=len(slices) // 2,
        style=Markup(part("style.css")),
        number=_number,
    )


def _figure(record: Record, key: str, name: str, meaning: str) -> dict[str, object]:
    """A line of the table of figures."""
    value, usual = record["fidelity"][key], (record.get("fidelity_usual") or {}).get(key)
    beyond = value is not None and usual is not None and not usual[0] <= value <= usual[1]
    return {"name": name, "meaning": meaning, "value": value, "usual": usual, "beyond": beyond}


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


# ---- pictures


def _shown(ct: Volume) -> Geometry:
    """The upright grid about the patient, its own slices, coarsened in plane to ACROSS pixels."""
    upright = ct.geometry.reorient()
    inside = np.argwhere(body_mask(ct).array)[::97]
    if len(inside):
        points = ct.geometry.points(inside)
        box = upright.around(np.stack([points.min(axis=0) - _AROUND_MM, points.max(axis=0) + _AROUND_MM]))
        low, high = [0, 0, 0], list(upright.shape)
        start = np.rint(upright.voxels(box.points((0, 0, 0)))).astype(int)
        for axis in (1, 2):
            low[axis] = max(0, int(start[axis]))
            high[axis] = min(upright.shape[axis], int(start[axis]) + box.shape[axis])
        upright = upright.crop(low, high)
    longest = max(n * mm for n, mm in zip(upright.shape[1:], upright.spacing_mm[1:], strict=True))
    step = max(longest / ACROSS, min(upright.spacing_mm[1:]))
    return upright.resample([upright.spacing_mm[0], step, step])


def _edges(on: Volume, ct: Array, made: Array) -> Bytes:
    """(k, j, i, 3) of slices that lie as those of ``on``: red where the edge is stronger in the CT, blue where it is in the made image,
    grey the CT's tissue."""
    soft = np.clip(ct, *_SOFT_HU).astype(np.float32)
    a, b = (_scaled(gradient(values, on)) for values in (soft, made.astype(np.float32)))
    apart = np.clip(a - b, -1, 1)
    base = 60 + np.float32(0.35) * _grey(ct, GREY_HU)
    red, blue = np.maximum(apart, 0), np.maximum(-apart, 0)
    channels = [base + 180 * red - 60 * blue, base - 60 * red - 30 * blue, base + 180 * blue - 60 * red]
    return np.asarray(np.clip(np.stack(channels, axis=-1), 0, 255), np.uint8)


def _scaled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """In parts of the 97th percentile of where there is any edge."""
    some = values[values > 0]
    top = max(float(np.percentile(some, 97)), 1e-9) if some.size else 1.0
    return np.asarray(np.minimum(values / top, 1), np.float32)


def _grey(values: Array, ends: tuple[float, float]) -> Bytes:
    return np.asarray(np.clip(255 * (values - ends[0]) / (ends[1] - ends[0]), 0, 255), np.uint8)


def _png(pixels: Bytes) -> str:
    """Rows of grey or RGB bytes as a PNG (ISO/IEC 15948, filter 0), in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows, columns = pixels.shape[:2]
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), pixels.reshape(rows, -1)], axis=1).tobytes()
    head = struct.pack(">IIBBBBB", columns, rows, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 6)) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode("ascii")
