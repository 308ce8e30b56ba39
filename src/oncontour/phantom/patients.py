"""Two synthetic patients: a head and neck, and a pelvis, as complete Cases.

They are cartoons with true proportions: HU and sizes of organs are textbook values, left is the patient's left (+x), and a seed draws
another patient (sizes, places, tilt, filling, side of the tumour). Organs differ from what surrounds them by place and neighbours as much
as by HU, so a threshold does not find them and a net has something to learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError
from oncontour.phantom.shapes import Both, Box, Ellipsoid, Minus, Moved, Point, Shape, Sphere, Tube, Union

AIR, FAT, MUSCLE, BRAIN, WATER = -1000.0, -100.0, 50.0, 36.0, 8.0
NOISE_HU = 12.0


@dataclass(frozen=True)
class _Body:
    """A patient about to be voxelised: later paint covers earlier paint."""

    name: str
    site: str
    paint: tuple[tuple[Shape, float], ...]
    organs: Mapping[str, Shape]
    pose: NDArray[np.float64]
    """4x4, canonical LPS mm to this patient's; paint, organs and target are given in canonical mm."""
    target: Ellipsoid
    target_name: str
    prescription_gy: float
    field_mm: tuple[float, float, float]
    centre_mm: Point
    age: float


class _Draw:
    """Random variation of anatomy, scaled by ``jitter``; at 0 every patient is the average one."""

    def __init__(self, seed: int, jitter: float) -> None:
        self.rng, self.jitter = np.random.default_rng(seed), float(jitter)

    def about(self, mean: float, sd: float) -> float:
        """A normal deviate cut at two standard deviations."""
        return float(mean + self.jitter * sd * np.clip(self.rng.standard_normal(), -2, 2))

    def factor(self, sd: float) -> float:
        return float(np.exp(self.about(0.0, sd)))

    def near(self, x: float, y: float, z: float, sd: float = 1.5) -> Point:
        return self.about(x, sd), self.about(y, sd), self.about(z, sd)

    def ellipsoid(self, centre: Point, radii: Point, *, place_mm: float = 1.5, size: float = 0.06) -> Ellipsoid:
        a, b, c = (r * self.factor(size) for r in radii)
        return Ellipsoid(self.near(*centre, place_mm), (a, b, c))

    def side(self) -> float:
        """+1 (patient's left) or -1 (right)."""
        return 1.0 if self.rng.random() < 0.5 else -1.0

    def pose(self, pivot: Point) -> NDArray[np.float64]:
        """A small nod, turn and lean about ``pivot`` (degrees sd 3, 3, 2), another size (sd 3 %) and a shift (sd 4 mm)."""
        nod, turn, lean = (np.deg2rad(self.about(0.0, sd)) for sd in (3.0, 3.0, 2.0))
        linear = _rotation(0, nod) @ _rotation(2, turn) @ _rotation(1, lean) * self.factor(0.03)
        affine = np.eye(4)
        affine[:3, :3] = linear
        affine[:3, 3] = np.asarray(pivot) - linear @ np.asarray(pivot) + np.array(self.near(0, 0, 0, 4.0))
        return affine


def head_neck(
    seed: int = 0, spacing_mm: Sequence[float] = (3.0, 3.0, 3.0), jitter: float = 1.0, shape: Sequence[int] | None = None
) -> Case:
    """A head and neck: CT (HU), dose (Gy, 70 to the target) and masks Brainstem, SpinalCord, Parotid_L, Parotid_R, Esophagus, Larynx,
    Bone_Mandible, PTV_7000.

    ``spacing_mm`` and ``shape`` are (k, j, i); without ``shape`` the grid holds the whole anatomy (264 x 240 x 288 mm). ``jitter`` scales
    how much patients differ: 0 makes them the same but for noise. The same arguments give the same bits.
    """
    return _voxelise(_head_neck_body(seed, jitter), seed, spacing_mm, shape)


def pelvis(seed: int = 0, spacing_mm: Sequence[float] = (3.0, 3.0, 3.0), jitter: float = 1.0, shape: Sequence[int] | None = None) -> Case:
    """A male pelvis: CT (HU), dose (Gy, 60 to the target) and masks Bladder, Rectum, Prostate, Femur_Head_L, Femur_Head_R, PTV.

    Arguments as for ``head_neck``; the whole anatomy takes 216 x 264 x 384 mm. Bladder filling and rectal gas vary most.
    """
    return _voxelise(_pelvis_body(seed, jitter), seed, spacing_mm, shape)


# ---- anatomy: canonical LPS mm, z = 0 at the angle of the jaw (head and neck) or the femoral heads (pelvis)


def _head_neck_body(seed: int, jitter: float) -> _Body:
    draw = _Draw(seed, jitter)
    pose = draw.pose((0.0, 30.0, -60.0))
    outside = _head_outline()
    cord, brainstem, canal = _cord(draw)
    organs: dict[str, Shape] = {"Brainstem": brainstem, "SpinalCord": cord}
    for name, side in (("Parotid_L", 1.0), ("Parotid_R", -1.0)):
        organs[name] = Both(draw.ellipsoid((side * 52, 8, 20), (12, 17, 23), size=0.1), _head_outline(-3.0))
    organs["Bone_Mandible"] = _mandible(draw)
    x, y = draw.about(2, 1.5), draw.about(22, 1.5)
    organs["Esophagus"] = Both(Tube(((x, y, -150), (x, y - 1, -95), (0, 14, -52)), (8, 8, 7)), Box((0, 0, -100), (400, 400, 105)))
    organs["Larynx"] = draw.ellipsoid((0, -8, -32), (17, 19, 21))
    airway = Tube(((0, -2, -150), (0, -6, -60), (0, -6, -30), (0, 2, 5), (0, -10, 45)), (8, 8, 5, 8, 9))
    site = draw.ellipsoid((draw.side() * 20, 0, 8), (24, 24, 30), place_mm=5, size=0.15)
    paint: list[tuple[Shape, float]] = [
        (outside, FAT),
        (_head_outline(-6.0), MUSCLE),
        (Both(Ellipsoid((0, 0, 75), (70, 88, 88)), Box((0, 0, 162), (400, 400, 250))), 900.0),
        (Both(Ellipsoid((0, 0, 75), (64, 82, 82)), Box((0, 0, 164), (400, 400, 246))), BRAIN),
        (Tube(((0, 34, -150), (0, 28, -60), (0, 30, 0), (0, 34, 30)), (15, 13, 12, 12)), 350.0),
        (Tube(((0, 57, -150), (0, 52, -60), (0, 53, 0), (0, 50, 30)), (15, 13, 13, 14)), 300.0),
        (canal, WATER),
        (cord, 38.0),
        (brainstem, 28.0),
        (Ellipsoid((0, -40, 0), (24, 32, 16)), 60.0),
        (organs["Bone_Mandible"], draw.about(900, 60)),
        *((organs[name], draw.about(-5, 12)) for name in ("Parotid_L", "Parotid_R")),
        (organs["Esophagus"], 32.0),
        (organs["Larynx"], 75.0),
        (Both(site, _head_outline(-6.0)), 62.0),
        (airway, AIR),
    ]
    target = _grown(site, 4.0)
    age = draw.about(60, 9)
    return _Body(
        "head-neck", "head and neck", tuple(paint), organs, pose, target, "PTV_7000", 70.0, (264, 240, 288), (0.0, 10.0, 10.0), age
    )


def _head_outline(grow_mm: float = 0.0) -> Shape:
    g = grow_mm
    return Union(
        (
            Ellipsoid((0, 0, 65), (76 + g, 96 + g, 102 + g)),
            Ellipsoid((0, -42, 5), (50 + g, 50 + g, 45 + g)),
            Tube(((0, 18, -170), (0, 16, -60), (0, 8, 30)), (66 + g, 60 + g, 66 + g)),
            Ellipsoid((0, 22, -150), (185 + g, 78 + g, 62 + g)),
        )
    )


def _cord(draw: _Draw) -> tuple[Shape, Shape, Shape]:
    """Spinal cord, brainstem above it, and the canal around the cord, on one curve."""
    bend = draw.about(0, 2.5)
    path = ((0.0, 46.0, -170.0), (0.0, 41.0 + bend, -70.0), (0.0, 42.0 + bend, -10.0), (0.0, 36.0, 32.0))
    thick = draw.about(6.0, 0.4)
    cut = draw.about(30.0, 1.5)
    below = Box((0, 0, cut - 150), (400, 400, 300))
    stem = Tube((path[-1], (0.0, 22.0, 58.0), (0.0, 17.0, 80.0)), (8.5, 15.0, 13.0))
    above = Box((0, 0, cut + 50), (400, 400, 100))
    return Both(Tube(path, (thick,)), below), Both(stem, above), Both(Tube(path, (thick + 4,)), below)


def _mandible(draw: _Draw) -> Shape:
    """A horseshoe with its opening to the back and a ramus up on either side."""
    half, front = draw.about(46, 2), draw.about(-72, 2)
    arch = [(half * float(np.sin(a)), -18 + (front + 18) * float(np.cos(a)), -8.0) for a in np.linspace(-np.pi / 2, np.pi / 2, 9)]
    body = Union((Tube(tuple(arch), (7.0,)), Tube(tuple((x, y, z - 9) for x, y, z in arch), (6.0,))))
    rami = [Tube(((s * half, -16, -10), (s * (half + 3), -6, 20), (s * (half + 3), -4, 42)), (8.0, 7.0, 6.0)) for s in (1.0, -1.0)]
    return Union((body, *rami))


def _pelvis_body(seed: int, jitter: float) -> _Body:
    draw = _Draw(seed, jitter)
    pose = draw.pose((0.0, 20.0, 0.0))
    fill = draw.factor(0.18)
    bladder = Ellipsoid(draw.near(0, -38, 14 + 12 * fill, 2), (36 * fill, 27 * fill, 24 * fill))
    prostate = draw.ellipsoid((0, -8, -20), (23, 17, 19), place_mm=2.5, size=0.1)
    rectum, gas = _rectum(draw)
    organs: dict[str, Shape] = {"Bladder": Minus(bladder, prostate), "Rectum": Minus(rectum, prostate), "Prostate": prostate}
    heads = {
        name: Sphere(draw.near(s * 92, -6, 0, 2), 24 * draw.factor(0.05)) for name, s in (("Femur_Head_L", 1.0), ("Femur_Head_R", -1.0))
    }
    organs |= heads
    paint: list[tuple[Shape, float]] = [
        (_trunk(0.0), FAT),
        (_trunk(-20.0), MUSCLE),
        (Ellipsoid((0, -10, 20), (78, 70, 110)), -80.0),
        (Both(Tube(((0, 92, 40), (0, 88, 5), (0, 66, -25)), (26, 20, 8)), Box((0, 0, 0), (400, 400, 400))), 260.0),
        *((wing, 330.0) for s in (1.0, -1.0) for wing in _hip(s)),
        *((head, draw.about(330, 25)) for head in heads.values()),
        (bladder, draw.about(WATER, 3)),
        (rectum, 30.0),
        (gas, AIR + 50),
        (prostate, 40.0),
        (Ellipsoid((0, -2, 2), (28, 8, 7)), 25.0),
    ]
    target = _grown(prostate, 7.0)
    age = draw.about(69, 6)
    return _Body("pelvis", "pelvis", tuple(paint), organs, pose, target, "PTV", 60.0, (216, 264, 384), (0.0, 5.0, 0.0), age)


def _grown(solid: Ellipsoid, margin_mm: float) -> Ellipsoid:
    a, b, c = (r + margin_mm for r in solid.radii_mm)
    return Ellipsoid(solid.centre_mm, (a, b, c))


def _trunk(grow_mm: float) -> Shape:
    g = grow_mm
    return Both(Ellipsoid((0, 5, 0), (180 + g, 120 + g, 420)), Box((0, 0, 0), (600, 600, 800)))


def _rectum(draw: _Draw) -> tuple[Shape, Shape]:
    x, wide = draw.about(0, 3), draw.about(14, 2)
    path = ((0.0, 40.0, -62.0), (0.0, 30.0, -35.0), (x, 34.0, 0.0), (x * 2, 50.0, 35.0), (x, 44.0, 62.0))
    at = 2 if draw.about(0, 1) < 0 else 3
    return Tube(path, (wide - 2, wide, wide + 1, wide, wide)), Ellipsoid(path[at], (wide * 0.55, wide * 0.5, 12))


def _hip(side: float) -> tuple[Shape, ...]:
    """Femoral neck and shaft, and the acetabulum with the bone above it."""
    socket = Minus(Sphere((side * 92, -6, 0), 36), Sphere((side * 92, -6, 0), 27))
    return (
        Tube(((side * 92, -6, 0), (side * 128, 4, -28), (side * 134, 4, -140)), (17, 16, 17)),
        Both(socket, Box((side * 70, 0, 15), (60, 200, 60))),
        Tube(((side * 84, 0, 30), (side * 100, 30, 80), (side * 115, 10, 140)), (15, 13, 12)),
        Tube(((side * 60, -40, -8), (side * 10, -52, -22)), (9, 10)),
    )


# ---- voxels


def _voxelise(body: _Body, seed: int, spacing_mm: Sequence[float], shape: Sequence[int] | None) -> Case:
    grid = _grid(body, spacing_mm, shape)
    rng = np.random.default_rng([seed, 1])
    hu = np.full(grid.shape, AIR, np.float32)
    for solid, value in body.paint:
        hu[Moved(solid, body.pose).mask(grid, sub=1).array] = value
    hu = ndimage.gaussian_filter(hu, 0.45, truncate=2)  # partial volume, as a scanner's point spread leaves it
    skin = Moved(body.paint[0][0], body.pose).coverage(grid, sub=1)
    masks = {name: Moved(organ, body.pose).mask(grid, sub=2) for name, organ in body.organs.items()}
    masks[body.target_name] = Moved(Both(body.target, body.paint[0][0]), body.pose).mask(grid, sub=2)
    ct = Volume(np.clip(hu + _texture(rng, grid.shape), -1024, 3071).astype(np.float32), grid)
    images = {"ct": ct, "dose": _dose(body, grid, skin, rng)}
    facts = {"site": body.site, "age": round(body.age), "prescription_gy": body.prescription_gy, "seed": seed}
    return Case(f"phantom-{body.name}-{seed:03d}", images, masks, facts=facts)


def _grid(body: _Body, spacing_mm: Sequence[float], shape: Sequence[int] | None) -> Geometry:
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (3,) or not np.isfinite(spacing).all() or spacing.min() <= 0:
        raise ConfigError(f"a phantom needs three positive millimetres (k, j, i) as spacing, not {spacing_mm}")
    size = tuple(shape) if shape is not None else tuple(round(n) for n in np.maximum(1, np.asarray(body.field_mm) / spacing))
    corner = np.asarray(body.centre_mm) - ((np.asarray(size) - 1) / 2 * spacing)[::-1]
    return Geometry.regular(size, spacing_mm, corner.tolist())


def _texture(rng: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Quantum noise as a reconstruction leaves it (a little blurred), and a slow drift of a few HU."""
    fine = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), 0.6)
    slow = ndimage.zoom(rng.standard_normal((4, 4, 4), np.float32), [n / 4 for n in shape], order=1)
    return np.asarray(fine * (NOISE_HU / fine.std()) + 3 * slow[: shape[0], : shape[1], : shape[2]], dtype=np.float32)


def _dose(body: _Body, grid: Geometry, skin: Volume, rng: np.random.Generator) -> Volume:
    """Gy: the prescription in the target, a penumbra of some 15 mm beside it, then a slow fall, a part of it along seven beams."""
    back = np.linalg.inv(body.pose)
    k, j, i = np.ogrid[: grid.shape[0], : grid.shape[1], : grid.shape[2]]
    at = grid.points(np.stack(np.broadcast_arrays(k, j, i), axis=-1)) @ back[:3, :3].T + back[:3, 3]
    depth = (body.target.reach(at) - 1) * float(np.mean(body.target.radii_mm))
    angle = np.arctan2(at[..., 1] - body.target.centre_mm[1], at[..., 0] - body.target.centre_mm[0])
    beams = 0.5 + 0.5 * np.cos(7 * angle)
    near = 1 / (1 + np.exp((depth - 8) / 3))
    far = (0.35 + 0.25 * beams) * np.exp(-np.maximum(depth, 0) / 45) * np.exp(-((at[..., 2] - body.target.centre_mm[2]) ** 2) / (2 * 55**2))
    ripple = 1 + 0.01 * ndimage.gaussian_filter(rng.standard_normal(grid.shape, np.float32), 2.0)
    dose = body.prescription_gy * (near + (1 - near) * far) * ripple * skin.array
    return Volume(dose.astype(np.float32), grid)


def _rotation(axis: int, radians: float) -> NDArray[np.float64]:
    """3x3, about x, y or z."""
    c, s = np.cos(radians), np.sin(radians)
    turn = np.eye(3)
    a, b = [n for n in range(3) if n != axis]
    turn[[a, a, b, b], [a, b, a, b]] = (c, -s, s, c)
    return turn
