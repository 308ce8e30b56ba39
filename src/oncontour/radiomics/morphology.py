"""Morphology: size and shape of a structure, and how intensity lies in it (IBSI section 3.1).

Shape is that of the morphological mask: mesh, convex hull and boxes of its surface (``mesh``), principal axes of its voxel centres.
Intensity is that of the intensity mask. What is not defined is NaN: elongation of a single voxel, autocorrelation of constant intensity
or of one voxel, everything of an empty mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from oncontour.radiomics.mesh import area_and_volume, vertices
from oncontour.radiomics.names import tags
from oncontour.radiomics.region import Region, box_of

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]
Mask = NDArray[np.bool_]
Values = dict[str, float]

INSIDE = ("com", "integ_int", "moran_i", "geary_c")
"""What needs intensity."""
AT_ONCE = 2
"""Frequencies along k: what is transformed along i and j stays in the cache."""
FLAT = 1e-14
"""A variance of less than this part of the largest is rounding: the structure is flat that way."""
SHAPE = tuple(name for name in tags("morph") if name not in INSIDE)


def morphology(region: Region) -> Values:
    """All 29 features, as ``morph_...``."""
    form = shape(region.morphological, region.spacing_mm)
    return form | inside(region, form["morph_volume"])


def shape(mask: Mask, spacing_mm: tuple[float, float, float]) -> Values:
    """The 25 features that need no intensity."""
    if not mask.any():
        return {f"morph_{name}": np.nan for name in SHAPE}
    mask = mask[box_of(mask)]
    area, volume = area_and_volume(mask, spacing_mm)
    points = vertices(mask, spacing_mm)
    for _ in range(3):
        points = np.roll(_outermost(points), -1, axis=1)  # the next axis first
    hull = ConvexHull(points)
    corners = points[hull.vertices]
    corners = corners[np.lexsort(corners.T)]  # in one order, however the hull was found: the ellipsoid is found to a tolerance
    box, tight = np.ptp(corners, axis=0), _smallest_box(hull)
    halves = _principal_halves(mask, spacing_mm)
    ellipsoid = enclosing_ellipsoid(corners)
    roundness = 36 * np.pi * volume**2 / area**3
    values = (
        volume,
        mask.sum() * np.prod(spacing_mm),
        area,
        area / volume,
        volume / np.sqrt(np.pi * area**3),
        roundness,
        roundness ** (-1 / 3),
        roundness ** (1 / 3),
        roundness ** (-1 / 3) - 1,
        pdist(corners).max(),
        *(2 * halves),
        *(np.sqrt(_share(halves[n] ** 2, halves[0] ** 2)) for n in (1, 2)),
        volume / box.prod(),
        area / _box_area(box),
        volume / tight.prod(),
        area / _box_area(tight),
        *_in_ellipsoid(volume, area, halves),
        *_in_ellipsoid(volume, area, ellipsoid),
        volume / hull.volume,
        area / hull.area,
    )
    return {f"morph_{name}": float(value) for name, value in zip(SHAPE, values, strict=True)}


def inside(region: Region, volume_mm3: float) -> Values:
    """The 4 features of how intensity lies in the structure: shift of its centre, integral, spatial autocorrelation."""
    if not region.intensity.any():
        return {f"morph_{name}": np.nan for name in INSIDE}
    values, cut = region.values, box_of(region.morphological | region.intensity)
    form, bright = _centre(region.morphological[cut]), _centre(np.where(region.intensity[cut], region.image[cut], 0.0))
    shift = np.linalg.norm((form - bright) * region.spacing_mm) if bright is not None and form is not None else np.nan
    moran, geary = autocorrelation(region.image, region.intensity, region.spacing_mm)
    found = (shift, values.mean() * volume_mm3, moran, geary)
    return {f"morph_{name}": float(value) for name, value in zip(INSIDE, found, strict=True)}


def _centre(weights: Floats | Mask) -> Floats | None:
    """The mean place of an array's voxels (k, j, i) by their weights; None where these add up to 0."""
    along = [weights.sum(axis=others) for others in ((1, 2), (0, 2), (0, 1))]
    total = along[0].sum()
    return np.array([line @ np.arange(len(line)) for line in along]) / total if total else None


# ---- shape


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else np.nan


def _principal_halves(mask: Mask, spacing_mm: tuple[float, float, float]) -> Floats:
    """Half axes, long to short, of the ellipsoid with the covariance of the voxel centres: 2 sqrt(eigenvalue) (IBSI TDIC, P9VJ, 7J51).

    The covariance is that of a sample (n - 1), as the consensus values have it; a single voxel has none (NaN).
    """
    many, first, second = _sums_of_places(mask)
    if many < 2:
        return np.full(3, np.nan)
    # n sum(xy) - sum(x) sum(y) of whole numbers, exactly
    whole = np.array([[many * int(second[a, b]) - int(first[a]) * int(first[b]) for b in range(3)] for a in range(3)], np.float64)
    covariance = whole / (float(many) * (many - 1)) * np.outer(spacing_mm, spacing_mm)
    spread = np.linalg.eigvalsh(covariance)[::-1]
    return np.asarray(2 * np.sqrt(np.where(spread > FLAT * spread[0], spread, 0)))


@njit(cache=True, nogil=True)
def _sums_of_places(mask: Mask) -> Any:
    """How many voxels a mask has, the sums of their places (k, j, i), and of the products of two of these."""
    many, first, second = 0, np.zeros(3, np.int64), np.zeros((3, 3), np.int64)
    nk, nj, ni = mask.shape
    for k in range(nk):
        for j in range(nj):
            here, along, squares = 0, 0, 0
            for i in range(ni):
                if mask[k, j, i]:
                    here += 1
                    along += i
                    squares += i * i
            many += here
            place, sums = (k, j), (k * here, j * here)
            for a in range(2):
                first[a] += sums[a]
                second[a, 2] += place[a] * along
                second[2, a] += place[a] * along
                for b in range(2):
                    second[a, b] += sums[a] * place[b]
            first[2] += along
            second[2, 2] += squares
    return many, first, second


def _box_area(sides: Floats) -> float:
    a, b, c = sides
    return float(2 * (a * b + b * c + c * a))


def _in_ellipsoid(volume: float, area: float, halves: Floats) -> tuple[float, float]:
    """Volume and area over those of the ellipsoid; NaN where it is flat."""
    a, b, c = halves
    if not c > 1e-9 * a:
        return np.nan, np.nan
    return float(volume / (4 / 3 * np.pi * a * b * c)), area / ellipsoid_area(a, b, c)


def ellipsoid_area(a: float, b: float, c: float) -> float:
    """The area that IBSI RDD2 gives an ellipsoid with half axes a >= b >= c > 0: a series in Legendre polynomials up to degree 20.

    It is the true area for a ball alone (2 : 1 : 1 has 21.5, the series gives 17.3), but the consensus values of the area density follow
    it, and so do we.

    With e = sqrt(1 - b^2/a^2) and f = sqrt(1 - c^2/a^2) each term is (e f)^n P_n((e^2 + f^2) / (2 e f)), made by the polynomials' own
    recursion multiplied through by (e f)^n, so that nothing is divided by 0 for a sphere.
    """
    e2, f2 = 1 - (b / a) ** 2, 1 - (c / a) ** 2
    mean, product = (e2 + f2) / 2, e2 * f2
    before, term, total = 0.0, 1.0, 0.0
    for n in range(21):
        total += term / (1 - 4 * n * n)
        before, term = term, ((2 * n + 1) * mean * term - n * product * before) / (n + 1)
    return float(4 * np.pi * a * b * total)


def enclosing_ellipsoid(points: Floats, tolerance: float = 1e-4) -> Floats:
    """Half axes, long to short, of the smallest ellipsoid round ``points`` (n, 3) that do not lie in a plane (IBSI SWZ1).

    Source: Khachiyan's ascent from the points of Kumar and Yildirim with the steps away of Todd and Yildirim, Discrete Appl Math
    2007;155:1731-1744; every point lies within a factor sqrt(1 + tolerance) of the ellipsoid.
    """
    scale = float(np.ptp(points, axis=0).max())
    unit = np.ascontiguousarray(points - points.mean(axis=0)) / scale
    weight = _spanning(unit)
    lifted = np.column_stack([unit, np.ones(len(unit))])
    start = np.asarray(np.linalg.inv((lifted.T * weight) @ lifted), np.float64)
    weight = _ascended(lifted, weight, start, tolerance)
    centre = weight @ unit
    spread = (unit.T * weight) @ unit - np.outer(centre, centre)
    return np.asarray(scale * np.sqrt(np.clip(3 * np.linalg.eigvalsh(spread)[::-1], 0, None)))


def _spanning(points: Floats) -> Floats:
    """Equal weights on the two ends of ``points`` in three directions, each across the lines between the ends before."""
    weight, lines = np.zeros(len(points)), np.zeros((0, 3))
    for _ in range(3):
        across = np.linalg.svd(lines)[2][-1] if len(lines) else np.array([1.0, 0.0, 0.0])
        along = points @ across
        ends = int(along.argmin()), int(along.argmax())
        weight[list(ends)] = 1
        lines = np.vstack([lines, points[ends[1]] - points[ends[0]]])
    return np.asarray(weight / weight.sum())


@njit(cache=True, nogil=True)
def _ascended(lifted: Floats, weight: Floats, inverse: Floats, tolerance: float) -> Any:
    """Weights of ``lifted`` points (n, 4) with the covariance of the smallest enclosing ellipsoid; ``inverse`` of that at the start.

    ``reach`` is how far each point lies out; moving weight to one point changes the inverse by rank one (Sherman and Morrison).
    """
    n, size = lifted.shape
    reach = ((lifted[:, :, None] * inverse).sum(axis=1) * lifted).sum(axis=1)
    arm = np.empty(size)
    for _ in range(100_000):
        far, near = 0, -1
        for p in range(n):
            if reach[p] > reach[far]:
                far = p
            if weight[p] > 0 and (near < 0 or reach[p] < reach[near]):
                near = p
        if max(reach[far] / size - 1, 1 - reach[near] / size) < tolerance:
            break
        moved, step = far, (reach[far] - size) / (size * (reach[far] - 1))
        gone = False
        if reach[far] / size - 1 < 1 - reach[near] / size:
            moved, step, gone = near, -weight[near] / (1 - weight[near]), True
            if reach[near] > 1 and (reach[near] - size) / (size * (reach[near] - 1)) > step:
                step, gone = (reach[near] - size) / (size * (reach[near] - 1)), False
        share = step / (1 - step + step * reach[moved])
        for a in range(size):
            arm[a] = 0.0
            for b in range(size):
                arm[a] += inverse[a, b] * lifted[moved, b]
        for p in range(n):
            along = 0.0
            for a in range(size):
                along += lifted[p, a] * arm[a]
            reach[p] = (reach[p] - share * along * along) / (1 - step)
            weight[p] *= 1 - step
        weight[moved] = 0.0 if gone else weight[moved] + step
        for a in range(size):
            for b in range(size):
                inverse[a, b] = (inverse[a, b] - share * arm[a] * arm[b]) / (1 - step)
    return weight


def _directions(hull: ConvexHull) -> Floats:
    """The different normals of a hull's faces, opposite ones once."""
    normals = hull.equations[:, :3]
    lead = normals[np.arange(len(normals)), np.abs(normals).argmax(axis=1)]
    whole = np.rint(normals * np.sign(lead)[:, None] * 1e6).astype(np.int64)
    first = np.unique((whole[:, 0] << 42) + (whole[:, 1] << 21) + whole[:, 2], return_index=True)[1]  # 21 bits hold twice a million
    return np.asarray(whole[first] / 1e6)


def _smallest_box(hull: ConvexHull) -> Floats:
    """Sides of the smallest box round a hull that has one face along one of the hull's, and another along an edge seen that way.

    *Differs* from the exact oriented minimum bounding box (IBSI ZH1A), which may touch with edges alone; within a few per cent of it.
    """
    corners, number = hull.points[hull.vertices], np.empty(len(hull.points), np.int64)
    number[hull.vertices] = np.arange(len(corners))
    return _tightest(corners, _directions(hull), number[hull.simplices], np.ascontiguousarray(hull.equations[:, :3]))


@njit(cache=True, nogil=True)
def _tightest(points: Floats, normals: Floats, faces: NDArray[np.int64], facing: Floats) -> Floats:
    """Seen along a normal, the outline of the hull is among the corners that faces towards and faces away have in common."""
    best, least = np.zeros(3), np.inf
    n = len(points)
    across, up, order = np.empty(n), np.empty(n), np.empty(2 * n, np.int64)
    side = np.empty(n, np.uint8)
    for m in range(len(normals)):
        z = normals[m] / np.sqrt((normals[m] ** 2).sum())
        a = np.zeros(3)
        a[np.abs(z).argmin()] = 1.0
        x = np.cross(z, a)
        x /= np.sqrt((x**2).sum())
        y = np.cross(z, x)
        side[:] = 0
        for f in range(len(faces)):
            towards = facing[f, 0] * z[0] + facing[f, 1] * z[1] + facing[f, 2] * z[2]
            seen = (1 if towards > -1e-6 else 0) | (2 if towards < 1e-6 else 0)
            for c in faces[f]:
                side[c] |= seen
        low, high, many = np.inf, -np.inf, 0
        for p in range(n):
            depth = points[p, 0] * z[0] + points[p, 1] * z[1] + points[p, 2] * z[2]
            low, high = min(low, depth), max(high, depth)
            if side[p] == 3:
                across[many] = points[p, 0] * x[0] + points[p, 1] * x[1] + points[p, 2] * x[2]
                up[many] = points[p, 0] * y[0] + points[p, 1] * y[1] + points[p, 2] * y[2]
                many += 1
        outline = _outline(across[:many], up[:many], order)
        for q in range(outline):
            first, second = order[q], order[(q + 1) % outline]
            c, s = across[second] - across[first], up[second] - up[first]
            long = np.sqrt(c * c + s * s)
            if long < 1e-9:
                continue
            c, s = c / long, s / long
            left, right, bottom, top = np.inf, -np.inf, np.inf, -np.inf
            for r in range(outline):
                u = across[order[r]] * c + up[order[r]] * s
                v = up[order[r]] * c - across[order[r]] * s
                left, right, bottom, top = min(left, u), max(right, u), min(bottom, v), max(top, v)
            volume = (right - left) * (top - bottom) * (high - low)
            if volume < least:
                least = volume
                best = np.array([right - left, top - bottom, high - low])
    return best


def _outermost(points: Floats) -> Floats:
    """Those of ``points`` (in planes across the first axis) that are corners of the outline of their plane: the convex hull's are."""
    points = points[np.argsort(points[:, 0], kind="stable")]
    ends = np.concatenate([[0], np.flatnonzero(np.diff(points[:, 0])) + 1, [len(points)]])
    return np.asarray(points[_corners(points[:, 1].copy(), points[:, 2].copy(), ends)])


@njit(cache=True, nogil=True)
def _corners(x: Floats, y: Floats, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    out, order, many = np.empty(2 * len(x), np.int64), np.empty(2 * len(x), np.int64), 0
    for n in range(len(ends) - 1):
        size = _outline(x[ends[n] : ends[n + 1]], y[ends[n] : ends[n + 1]], order)
        out[many : many + size] = ends[n] + order[:size]
        many += size
    return out[:many]


@njit(cache=True, nogil=True)
def _outline(x: Floats, y: Floats, order: NDArray[np.int64]) -> int:
    """The convex hull of points in the plane into ``order``, anticlockwise; gives how many (Andrew's chains).

    Points above each other, up to rounding, go by their height: the chains would lose a corner otherwise.
    """
    if len(x) == 1:
        order[0] = 0
        return 1
    by_y = np.argsort(y, kind="mergesort")
    by_x = by_y[np.argsort(np.floor(x[by_y] * 1e9 + 0.5), kind="mergesort")]
    size = 0
    for turn in range(2):
        base = size
        for n in range(len(x)):
            p = by_x[n] if turn == 0 else by_x[len(x) - 1 - n]
            while size - base >= 2:
                a, b = order[size - 2], order[size - 1]
                if (x[b] - x[a]) * (y[p] - y[a]) - (y[b] - y[a]) * (x[p] - x[a]) > 1e-12:
                    break
                size -= 1
            order[size] = p
            size += 1
        size -= 1
    return size


# ---- intensity in the structure


def autocorrelation(image: Floats, mask: Mask, spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Moran's I (IBSI N365) and Geary's C (NPT7) with weights 1 / distance between all pairs of voxels; NaN for constant intensity.

    All pairs, exactly, in the time of a few Fourier transforms: the sum over pairs of w a b is a correlation on the grid.
    """
    count = int(mask.sum())
    if count < 2:
        return np.nan, np.nan
    cut = box_of(mask)
    here = mask[cut]
    away = np.where(here, image[cut] - image[mask].mean(), 0.0)
    squares = float((away**2).sum())
    if squares <= 1e-12 * max(float((np.where(here, image[cut], 0.0) ** 2).sum()), 1e-300):
        return np.nan, np.nan
    sizes = [2 * fft.next_fast_len(n) for n in here.shape]
    weights = _weights(sizes, here.shape, spacing_mm)
    parts = [fft.rfft(part, sizes[0], axis=0) for part in (here.astype(np.float64), away**2, away)]
    sums = np.zeros(3)
    for k in range(0, len(weights), AT_ONCE):
        one, square, itself = (_planes(part[k : k + AT_ONCE], sizes) for part in parts)
        sums += _paired(weights[k : k + AT_ONCE], one, square, itself)
    pairs, crossed, products = sums / np.prod(sizes)
    apart = 2 * (crossed - products)
    return float(count / pairs * products / squares), float((count - 1) / (2 * pairs) * apart / squares)


def _planes(part: Complex, sizes: list[int]) -> Complex:
    """``part``, transformed along k, transformed along i and j as well: lines that are padding through and through are left out."""
    return np.asarray(fft.fft(fft.fft(part, sizes[2], axis=2), sizes[1], axis=1, overwrite_x=True))


def _weights(sizes: list[int], shape: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> Floats:
    """Transform of 1 / distance over every shift that two voxels of a box of ``shape`` can have, at frequencies up to half of ``sizes``;
    twice where a half spectrum along k leaves out the other half.

    Shifts go both ways: the transform is real and even, a cosine transform of the shifts that go forward; ``sizes`` are even.
    """
    squares = []
    for size, n, step in zip(sizes, shape, spacing_mm, strict=True):
        shift = np.arange(size // 2 + 1)
        squares.append(np.where(shift < n, (shift * step) ** 2, np.inf))
    distance = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])
    distance[0, 0, 0] = np.inf
    found = fft.dctn(1 / distance, type=1)
    found[1:-1] *= 2
    return np.asarray(found)


@njit(cache=True, nogil=True)
def _paired(weights: Floats, one: Complex, square: Complex, away: Complex) -> Floats:
    """The sums of weight times one and one, one and square, away and away over frequencies of the arrays: some along k, all along j and
    i, of which the weights have the first half."""
    ones, crossed, products = 0.0, 0.0, 0.0
    nk, nj, ni = one.shape
    for k in range(nk):
        for j in range(nj):
            weight, a, b, c = weights[k, min(j, nj - j)], one[k, j], square[k, j], away[k, j]
            for i in range(ni):
                share = weight[min(i, ni - i)]
                ones += share * (a[i].real * a[i].real + a[i].imag * a[i].imag)
                crossed += share * (a[i].real * b[i].real + a[i].imag * b[i].imag)
                products += share * (c[i].real * c[i].real + c[i].imag * c[i].imag)
    return np.array([ones, crossed, products])
