"""Augmentation, the dice apart from the deed: ``Ranges.draw(rng)`` gives a ``Move``, ``Move.take`` cuts the moved window.

What was drawn can thus be recorded and repeated. Image and masks are read in one pass over the window, straight from the case: zoom,
rotation, flip and crop cost one interpolation together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from oncontour.ops.intensity import AIR_HU


@dataclass(frozen=True)
class Ranges:
    """How far augmentation goes; all zero (and ``flip_*`` False) is none."""

    rotation_deg: float = 10.0
    """about the k axis (in the slice)"""
    tilt_deg: float = 5.0
    """about j and i (3D windows only)"""
    zoom: float = 0.15
    """factor in [1 - zoom, 1 + zoom]"""
    shift_mm: float = 20.0
    """on each axis"""
    flip_left_right: bool = True
    """mirror; organs of the two sides change names"""
    flip_front_back: bool = False
    """mirror front to back"""
    hu_shift: float = 20.0
    """added to all grey values, at most"""
    hu_scale: float = 0.05
    """grey values times 1 - this to 1 + this"""
    noise_hu: float = 15.0
    """standard deviation of added noise, at most"""

    def draw(self, rng: np.random.Generator, *, flat: bool) -> Move:
        """One Move; ``flat`` keeps it in the slice."""
        symmetric = rng.uniform(-1, 1, 9)
        tilt = 0.0 if flat else self.tilt_deg
        shift = symmetric[5:8] * self.shift_mm * (np.array([0, 1, 1]) if flat else 1)
        return Move(
            angles_deg=(float(symmetric[0] * self.rotation_deg), float(symmetric[1] * tilt), float(symmetric[2] * tilt)),
            zoom=float(1 + symmetric[3] * self.zoom),
            shift_mm=(float(shift[0]), float(shift[1]), float(shift[2])),
            flip_left_right=bool(self.flip_left_right and rng.random() < 0.5),
            flip_front_back=bool(self.flip_front_back and rng.random() < 0.5),
            hu_scale=float(1 + symmetric[4] * self.hu_scale),
            hu_shift=float(symmetric[8] * self.hu_shift),
            noise_hu=float(rng.random() * self.noise_hu),
            noise_seed=int(rng.integers(2**31)),
        )


@dataclass(frozen=True)
class Move:
    """One augmentation, drawn. The default is none: a plain crop."""

    angles_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    zoom: float = 1.0
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    flip_left_right: bool = False
    flip_front_back: bool = False
    hu_scale: float = 1.0
    hu_shift: float = 0.0
    noise_hu: float = 0.0
    noise_seed: int = 0

    def matrix(self, spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
        """3x3 from steps in the window to steps in the source, both in voxels (k, j, i): rotation and zoom happen in millimetres."""
        about_k, about_j, about_i = np.deg2rad(self.angles_deg)
        c, s = np.cos, np.sin
        turn_k = np.array([[1, 0, 0], [0, c(about_k), -s(about_k)], [0, s(about_k), c(about_k)]])
        turn_j = np.array([[c(about_j), 0, s(about_j)], [0, 1, 0], [-s(about_j), 0, c(about_j)]])
        turn_i = np.array([[c(about_i), -s(about_i), 0], [s(about_i), c(about_i), 0], [0, 0, 1]])
        flip = np.diag([1.0, -1.0 if self.flip_front_back else 1.0, -1.0 if self.flip_left_right else 1.0])
        step = np.diag(spacing_mm)
        flat = self.angles_deg[1] == 0 and self.angles_deg[2] == 0
        scale = np.diag([1.0 if flat else self.zoom, self.zoom, self.zoom])
        matrix: NDArray[np.float64] = np.linalg.inv(step) @ turn_k @ turn_j @ turn_i @ scale @ flip @ step
        return matrix

    def take(
        self,
        ct: NDArray[np.int16],
        bits: NDArray[np.uint32],
        n_masks: int,
        spacing_mm: tuple[float, float, float],
        centre: tuple[float, float, float],
        size: tuple[int, int, int],
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The moved window of ``size`` (k, j, i) around source voxel ``centre``: HU (k, j, i) and masks (n_masks, k, j, i).

        Bit n of ``bits`` is mask n. Masks are interpolated and cut at one half; beyond the source there is air and no mask.
        """
        image = np.empty(size, np.float32)
        masks = np.empty((n_masks, *size), np.bool_)
        _sample(ct, bits, *self._from(spacing_mm, centre, size), image, masks, AIR_HU)
        return self._shade(image), masks

    def carry(
        self,
        values: NDArray[np.int16],
        spacing_mm: tuple[float, float, float],
        centre: tuple[float, float, float],
        size: tuple[int, int, int],
    ) -> NDArray[np.float32]:
        """As ``take``, of ``values`` that no shade falls on (probabilities): 0 beyond the source."""
        out = np.empty(size, np.float32)
        nothing = np.zeros(values.shape, np.uint32), np.empty((0, *size), np.bool_)
        _sample(values, nothing[0], *self._from(spacing_mm, centre, size), out, nothing[1], 0.0)
        return out

    def _from(
        self, spacing_mm: tuple[float, float, float], centre: tuple[float, float, float], size: tuple[int, int, int]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(matrix from steps in the window to steps in the source, source position of the window's first voxel)."""
        matrix = self.matrix(spacing_mm)
        middle = (np.asarray(size) - 1) / 2
        return matrix, np.asarray(centre) + np.asarray(self.shift_mm) / np.asarray(spacing_mm) - matrix @ middle

    def _shade(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.hu_scale == 1 and self.hu_shift == 0 and self.noise_hu == 0:
            return image
        known = image > AIR_HU + 1
        image *= np.float32(self.hu_scale)
        image += np.float32(self.hu_shift)
        if self.noise_hu > 0:
            image += np.random.default_rng(self.noise_seed).standard_normal(image.shape, dtype=np.float32) * np.float32(self.noise_hu)
        image[~known] = AIR_HU
        return image


@njit(cache=True, nogil=True)
def _sample(
    ct: NDArray[np.int16],
    bits: NDArray[np.uint32],
    matrix: NDArray[np.float64],
    start: NDArray[np.float64],
    image: NDArray[np.float32],
    masks: NDArray[np.bool_],
    air: float,
) -> None:  # pragma: no cover - compiled
    depth, rows, columns = ct.shape
    n_masks = masks.shape[0]
    share = np.zeros(n_masks, np.float32)
    for k in range(image.shape[0]):
        for j in range(image.shape[1]):
            for i in range(image.shape[2]):
                z = start[0] + matrix[0, 0] * k + matrix[0, 1] * j + matrix[0, 2] * i
                y = start[1] + matrix[1, 0] * k + matrix[1, 1] * j + matrix[1, 2] * i
                x = start[2] + matrix[2, 0] * k + matrix[2, 1] * j + matrix[2, 2] * i
                share[:] = 0
                value = 0.0
                z0, y0, x0 = int(np.floor(z)), int(np.floor(y)), int(np.floor(x))
                for corner in range(8):
                    a, b, c = z0 + (corner >> 2), y0 + ((corner >> 1) & 1), x0 + (corner & 1)
                    weight = (1 - abs(z - a)) * (1 - abs(y - b)) * (1 - abs(x - c))
                    if weight <= 0:
                        continue
                    if a < 0 or b < 0 or c < 0 or a >= depth or b >= rows or c >= columns:
                        value += weight * air
                        continue
                    value += weight * ct[a, b, c]
                    here = bits[a, b, c]
                    n = 0
                    while here:
                        if here & 1:
                            share[n] += weight
                        here >>= 1
                        n += 1
                image[k, j, i] = value
                for n in range(n_masks):
                    masks[n, k, j, i] = share[n] >= 0.5


_SIDES = {"l": "r", "r": "l", "left": "right", "right": "left", "lt": "rt", "rt": "lt"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^A-Za-z]+")


def mirrored(names: tuple[str, ...]) -> list[int] | None:
    """For each structure the index of the one it becomes in a mirror (Parotid_L <-> Parotid_R), itself where it has no side.

    The side may stand anywhere in a name (Parotid_L_PRV05, Left Lung). None when one side of a pair is missing: such a set of structures
    must not be mirrored.
    """
    partner = [_other_side(name) for name in names]
    return [names.index(other) for other in partner] if set(partner) == set(names) else None


def _other_side(name: str) -> str:
    """``name`` with its words for left and right exchanged, wherever they stand (``sides`` knows those of TG-263 alone); a letter that a
    number follows is no side (a lumbar vertebra, L1)."""
    words = _WORD.findall(name)
    for n, word in enumerate(words):
        other, after = _SIDES.get(word.lower(), ""), words[n + 1] if n + 1 < len(words) else ""
        if other and not (len(word) == 1 and after[:1].isdigit()):
            words[n] = other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
    return "".join(words)
