"""The edges and corners that a surface from a grid cuts off, put back: where faces meet, a strip one cell wide lies across.

A margin makes such a loss larger: of a box, the ball that is moved along the cut edge falls short all round it. The faces beside the strip
are known, and go on into it until they meet. Source: Attene, Falcidieno, Rossignac and Spagnuolo, IEEE Trans Vis Comput Graph 2005, 11:181.
*Differs:* a vertex has the plane of the smooth triangles round it, so that faces may be bent, as the wall of a cylinder is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oncontour.metrics.isosurface import Mesh

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_SMOOTH = float(np.cos(np.deg2rad(6)))
"""Triangles that lie within this angle of each other are of one face."""
_CREASE = float(np.cos(np.deg2rad(40)))
"""Faces that meet in a larger angle than this have an edge."""
_SLIVER = 1e-3
"""Part of a grid's square below which a triangle's direction is rounding."""
_FARTHEST = 1.25
"""Grid steps that an edge may lie from the strip, and a corner from its triangle: beyond, faces do not meet there."""

_TOLD = 0.05
"""Part of the largest eigenvalue of the planes round a vertex from which on they tell where it lies along its axis: 25 degrees and more."""


@dataclass(frozen=True, eq=False)
class _Edges:
    """Each edge once: its ``ends`` (n, 2) as vertices, its ``sides`` (n, 2) as triangles (-1: the surface is open there), and ``of`` (m, 3)
    the edges of each triangle, from its corner 0 to 1, 1 to 2 and 2 to 0."""

    ends: Ints
    sides: Ints
    of: Ints

    @classmethod
    def find(cls, triangles: Ints) -> _Edges:
        ends = np.sort(np.stack([triangles, np.roll(triangles, -1, axis=1)], axis=2).reshape(-1, 2), axis=1)
        key = ends[:, 0] << 32 | ends[:, 1]
        _, first, of, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        owners = np.argsort(of, kind="stable") // 3
        begin = np.cumsum(count) - count
        second = np.where(count == 2, owners[np.minimum(begin + 1, len(owners) - 1)], -1)
        return cls(ends[first], np.stack([owners[begin], second], axis=1), of.reshape(-1, 3))


def sharpened(mesh: Mesh, step_mm: float) -> Mesh:
    """``mesh``, from a grid of equal steps, with its edges and corners put back, if they lie within about a step. Closed where it was."""
    triangles = mesh.triangles.astype(np.int64)
    if not len(triangles):
        return mesh
    edges = _Edges.find(triangles)
    planes, known = _planes(mesh, triangles, edges, step_mm)
    vertices = _onto_edges(mesh.vertices_mm, edges, planes, known, step_mm)
    u, v = edges.ends.T
    split = known[u] & known[v] & ((planes[u] * planes[v]).sum(axis=1) < _CREASE)
    middle, at = _meeting(vertices[edges.ends[split]], planes[edges.ends[split]])
    near = np.linalg.norm(at - middle, axis=1) <= _FARTHEST * step_mm
    split[split] = near
    added = np.full(len(split), -1, np.int64)
    added[split] = len(vertices) + np.arange(near.sum())
    return _subdivided(np.concatenate([vertices, at[near]]), triangles, added[edges.of], planes, step_mm)


def _planes(mesh: Mesh, triangles: Ints, edges: _Edges, step_mm: float) -> tuple[Floats, Bools]:
    """(n, 3) the normal of the face that each vertex lies on, and for which it is known: not within a strip, nor where faces meet."""
    a, b, c = mesh.corners_mm.transpose(1, 0, 2)
    area = np.cross(b - a, c - a)
    size = np.linalg.norm(area, axis=1)
    sliver = size <= _SLIVER * step_mm**2
    normals = area / np.where(sliver, 1.0, size)[:, None]
    one, other = edges.sides.T
    told = (other >= 0) & ~sliver[one] & ~sliver[other]
    smooth = ~told | ((normals[one] * normals[other]).sum(axis=1) >= _SMOOTH)
    flat = smooth[edges.of].all(axis=1) & ~sliver
    face = flat.copy()  # and what goes smoothly on from it: the triangles of a face beside its edge
    for near, far in ((one, other), (other, one)):
        face[far[told & smooth & flat[near]]] = True
    corners = triangles[face].ravel()
    count = len(mesh.vertices_mm)
    total = np.stack([np.bincount(corners, np.repeat(area[face, n], 3), count) for n in range(3)], axis=1)
    length = np.linalg.norm(total, axis=1)
    known = length > _SMOOTH * np.bincount(corners, np.repeat(size[face], 3), count) + 1e-12
    return total / np.where(known, length, 1.0)[:, None], known


def _onto_edges(vertices: Floats, edges: _Edges, planes: Floats, known: Bools, step_mm: float) -> Floats:
    """The vertices within a strip that have faces on both sides, put where those meet: closest to all planes beside, and least moved."""
    mine, beside = np.concatenate([edges.ends, edges.ends[:, ::-1]]).T
    told = ~known[mine] & known[beside]
    mine, beside = mine[told], beside[told]
    if not len(mine):
        return vertices
    moved, of = np.unique(mine, return_inverse=True)
    normals = planes[beside]
    offset = (normals * (vertices[beside] - vertices[mine])).sum(axis=1)
    squares, right = np.zeros((len(moved), 3, 3)), np.zeros((len(moved), 3))
    np.add.at(squares, of, normals[:, :, None] * normals[:, None])
    np.add.at(right, of, normals * offset[:, None])
    size, axes = np.linalg.eigh(squares)
    held = size >= _TOLD * size[:, 2:]
    share = np.where(held, np.einsum("nab,na->nb", axes, right) / np.where(held, size, 1.0), 0.0)
    way = np.einsum("nab,nb->na", axes, share)
    good = held[:, 1] & (np.linalg.norm(way, axis=1) <= _FARTHEST * step_mm)
    out = vertices.copy()
    out[moved[good]] += way[good]
    return out


def _meeting(points_mm: Floats, normals: Floats) -> tuple[Floats, Floats]:
    """Of pairs (n, 2, 3) of points with their planes: the middle between the points, and the closest point to it of both planes."""
    middle = points_mm.mean(axis=1)
    a, b = ((normals * (points_mm - middle[:, None])).sum(axis=2)).T
    c = normals.prod(axis=1).sum(axis=1)
    x, y = (a - c * b) / (1 - c * c), (b - c * a) / (1 - c * c)
    return middle, middle + x[:, None] * normals[:, 0] + y[:, None] * normals[:, 1]


def _subdivided(vertices: Floats, triangles: Ints, added: Ints, planes: Floats, step_mm: float) -> Mesh:
    """The triangles with the vertices that were ``added`` (m, 3) on their edges (-1: none)."""
    count = (added >= 0).sum(axis=1)
    parts = [triangles[count == 0]]
    for wanted in (1, 2, 3):
        mine = count == wanted
        if not mine.any():
            continue
        # turned so that of one its edge comes first, and of two the edge without one comes last but one
        turn = (added[mine] >= 0).argmax(axis=1) if wanted == 1 else ((added[mine] < 0).argmax(axis=1) - 1) % 3
        order = (np.arange(3) + turn[:, None]) % 3
        (a, b, c), (p, _, r) = (np.take_along_axis(one[mine], order, axis=1).T for one in (triangles, added))
        if wanted == 1:
            parts += [np.stack(one, axis=1) for one in ((a, p, c), (p, b, c))]
        elif wanted == 2:
            parts += [np.stack(one, axis=1) for one in ((a, p, r), (p, b, c), (p, c, r))]
        else:
            q = np.take_along_axis(added[mine], order, axis=1)[:, 1]
            tips = _corners(vertices, np.stack([a, b, c], axis=1), np.stack([p, q, r], axis=1), planes, step_mm)
            tip = len(vertices) + np.arange(len(tips))
            vertices = np.concatenate([vertices, tips])
            parts += [np.stack(one, axis=1) for one in ((a, p, tip), (p, b, tip), (b, q, tip), (q, c, tip), (c, r, tip), (r, a, tip))]
    return Mesh(vertices, np.concatenate(parts).astype(np.int32))


def _corners(vertices: Floats, triangles: Ints, added: Ints, planes: Floats, step_mm: float) -> Floats:
    """Where the planes of three vertices meet; where they do not near the triangle, the middle of the points on its edges."""
    middle = vertices[added].mean(axis=1)
    normals = planes[triangles]
    told = np.abs(np.linalg.det(normals)) > 0.1
    offset = (normals * (vertices[triangles] - middle[:, None])).sum(axis=2)
    away = np.zeros_like(middle)
    away[told] = np.linalg.solve(normals[told], offset[told][..., None])[..., 0]
    told &= np.linalg.norm(away, axis=1) <= _FARTHEST * step_mm
    return np.asarray(middle + np.where(told[:, None], away, 0.0))
