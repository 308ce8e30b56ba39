"""Filters: kernels a pencil finds, rotations and boundaries the slow way, how filters are written, and what they make of a cohort."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft, ndimage

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError
from oncontour.radiomics.extract import CT, DOSE, filtered, measure, of_response
from oncontour.radiomics.filters.response import respond
from oncontour.radiomics.filters.separable import pooled
from oncontour.radiomics.filters.settings import FILTERS, LAWS, Boundary, LaplacianOfGaussian, Pool, Simoncelli, Wavelet, parse
from oncontour.radiomics.filters.spectral import PADS
from oncontour.radiomics.region import Processing, prepare

ONE = (1.0, 1.0, 1.0)
NOISE = np.random.default_rng(0).normal(size=(12, 14, 16))
KERNELS = {"laws": (LAWS["E5"], LAWS["L5"], LAWS["S5"]), "none of them even or odd": ((1.0, 2.0, 4.0), (3.0, -1.0, 2.0), (1.0, 0.0, 5.0))}


def rotations(kernel: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Every turn of a kernel by right angles: orders and reversals of axes that are no mirror."""
    out = []
    for order in permutations(range(kernel.ndim)):
        for flips in product((1, -1), repeat=kernel.ndim):
            if round(np.linalg.det(np.eye(kernel.ndim)[list(order)])) * np.prod(flips) > 0:
                turned = kernel.transpose(order)
                out.append(turned[tuple(slice(None, None, step) for step in flips)])
    return out


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize(("boundary", "mode"), [("zero", "constant"), ("nearest", "nearest"), ("periodic", "wrap"), ("mirror", "reflect")])
def test_pooling_is_over_every_rotation(name: str, pool: Pool, boundary: Boundary, mode: str) -> None:
    one, two, three = (np.array(kernel) for kernel in KERNELS[name])
    turns = rotations(one[:, None, None] * two[:, None] * three)
    assert len(turns) == 24
    each = [ndimage.convolve(NOISE, kernel, mode=mode) for kernel in turns]
    assert np.allclose(pooled(NOISE, KERNELS[name], boundary, pool), getattr(np, pool)(each, axis=0))
    flat = rotations(one[:, None] * two)
    assert len(flat) == 4
    each = [ndimage.convolve(NOISE, kernel[None], mode=mode) for kernel in flat]
    assert np.allclose(pooled(NOISE, KERNELS[name][:2], boundary, pool), getattr(np, pool)(each, axis=0))


def test_what_is_pooled_over_rotations_turns_with_the_image() -> None:
    """Simoncelli's wavelet on a mirrored image: the grid of the consensus, which a periodic one has, is not the same in all directions."""
    for word in ("laws", "wavelet:bands=LHH", "wavelet:bands=LLH:level=2:pool=max", "simoncelli:boundary=mirror", "log"):
        turned = respond(np.rot90(NOISE, axes=(0, 2)), ONE, parse(word))
        assert np.allclose(np.rot90(respond(NOISE, ONE, parse(word)), axes=(0, 2)), turned), word


@pytest.mark.parametrize("boundary", ["zero", "nearest", "periodic", "mirror"])
@pytest.mark.parametrize("word", ["mean:support=3", "log:sigma_mm=1", "laws:energy=0", "gabor:sigma_mm=1", "wavelet:family=db2"])
def test_what_lies_beyond_the_image(word: str, boundary: Boundary) -> None:
    """The response to an image that was continued by hand is the same within the image."""
    asked = parse(f"{word}:boundary={boundary}")
    whole = respond(np.pad(NOISE, 12, PADS[boundary]), ONE, asked)
    assert np.allclose(whole[12:-12, 12:-12, 12:-12], respond(NOISE, ONE, asked))


def test_a_mirrored_image_by_cosines_is_the_doubled_one_by_fourier() -> None:
    """The band of a grid twice as long, at its own frequencies: what the cosine transform gives without doubling."""
    found = respond(NOISE, ONE, Simoncelli(boundary="mirror"))
    twice = np.pad(NOISE, [(0, n) for n in NOISE.shape], "symmetric")
    length = np.sqrt(sum(w**2 for w in np.meshgrid(*(2 * fft.fftfreq(n) for n in twice.shape), indexing="ij", sparse=True)))
    band = np.where((length > 0.25) & (length <= 1), np.cos(np.pi / 2 * np.log2(np.maximum(2 * length, 1e-9))), 0)
    assert np.allclose(found, fft.ifftn(fft.fftn(twice) * band).real[:12, :14, :16])


def test_a_laplacian_of_gaussian_of_a_parabola_is_its_curvature() -> None:
    """(x^2 + 2 y^2 + 3 z^2) / 2 has the Laplacian 6 everywhere, whatever the Gaussian; of a slice 3."""
    z, y, x = (np.arange(41.0) - 20 for _ in range(3))
    image = (x**2 + 2 * y[:, None] ** 2 + 3 * z[:, None, None] ** 2) / 2
    assert respond(image, ONE, LaplacianOfGaussian(sigma_mm=2, cut_sd=6))[20, 20, 20] == pytest.approx(6, abs=1e-3)
    assert respond(image, ONE, LaplacianOfGaussian(sigma_mm=2, cut_sd=6, by_slice=True))[20, 20, 20] == pytest.approx(3, abs=1e-3)
    assert respond(np.ones((9, 9, 9)), ONE, LaplacianOfGaussian(sigma_mm=2, cut_sd=6)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 2.0, 1.5)])
def test_a_laplacian_counts_every_direction_alike_in_mm(spacing: tuple[float, float, float]) -> None:
    """A ball of a Gaussian has three equal second derivatives at its middle: each is a third of the Laplacian (Riesz 200, 020, 002)."""
    z, y, x = np.meshgrid(*((np.arange(int(60 / step) | 1) - int(60 / step) // 2) * step for step in spacing), indexing="ij")
    middle = tuple(n // 2 for n in z.shape)
    for bent in (x**2, y**2, z**2):
        assert respond(bent, spacing, LaplacianOfGaussian(sigma_mm=4))[middle] == pytest.approx(2, rel=0.02)
    ball = np.exp(-(x**2 + y**2 + z**2) / (2 * 5**2))
    whole = respond(ball, spacing, LaplacianOfGaussian(sigma_mm=4))[middle]
    for orders in ("200", "020", "002"):
        assert respond(ball, spacing, LaplacianOfGaussian(sigma_mm=4, riesz=orders))[middle] == pytest.approx(-whole / 3, rel=0.05)


def test_a_riesz_transform_turns_a_cosine_into_a_sine() -> None:
    """Of first order along the wave: -i w / |w|, a quarter of a period; across it nothing (IBSI-2 AYRS)."""
    wave = np.cos(2 * np.pi * np.arange(16) / 4) * np.ones((16, 16, 1))
    plain = respond(wave, ONE, Simoncelli())
    along, across = (respond(wave, ONE, Simoncelli(riesz=orders)) for orders in ("100", "010"))
    assert np.allclose(along, np.roll(plain, 1, axis=2))
    assert np.allclose(across, 0)


def test_wavelets_are_orthonormal() -> None:
    """Low and high pass of one level keep the energy of a periodic image twice an axis, whatever the family."""
    for family in ("haar", "db2", "db3", "coif1"):
        bands = ["".join(letters) for letters in product("LH", repeat=3)]
        each = [respond(NOISE, ONE, Wavelet(family=family, bands=letters, pool="none", boundary="periodic")) for letters in bands]
        assert sum((part**2).sum() for part in each) == pytest.approx(8 * (NOISE**2).sum())


# ---- how filters are written


def test_a_filter_reads_back_as_itself() -> None:
    for kind in FILTERS:
        assert parse(parse(kind).name) == parse(kind)
    word = "laws:by_slice=true:kernels=L5E5:pool=mean:energy=3"
    assert parse(word).name == word
    assert parse("gabor:step_deg=0:theta_deg=60:planes=true").name == "gabor:theta_deg=60:step_deg=0:planes=true"
    assert parse("log:sigma_mm=3.0").name == "log:sigma_mm=3"
    assert parse(parse("log:sigma_mm=1.23456789").name).sigma_mm == 1.23456789


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("lgo", "log"),
        ("log:sigma=3", "sigma_mm"),
        ("log:sigma_mm=wide", "not a number"),
        ("log:sigma_mm=0", "greater than 0"),
        ("log:by_slice=yes", "true or false"),
        ("log:riesz=12", "3 digits"),
        ("log:riesz=000", "not all 0"),
        ("log:riesz=\u00b200", "3 digits"),
        ("mean:support=4", "odd"),
        ("laws:kernels=L5E5", "3 of Laws"),
        ("laws:kernels=L5E5X5", "3 of Laws"),
        ("laws:energy=-1", "0 or more"),
        ("gabor:step_deg=50", "divide 360"),
        ("gabor:step_deg=inf", "divide 360"),
        ("gabor:step_deg=nan", "divide 360"),
        ("gabor:step_deg=1e-6", "1 degree or more"),
        ("gabor:theta_deg=nan", "number of degrees"),
        ("gabor:by_slice=false", "plane"),
        ("wavelet:bands=LLX", "L or H"),
        ("wavelet:family=sym4", "haar, db2, db3, coif1"),
        ("simoncelli:level=0", "between 1 and 8"),
        ("mean:boundary=reflect", "zero, nearest, periodic, mirror"),
    ],
)
def test_a_mistake_is_told_before_any_work(word: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(word)


# ---- on a region


def test_what_is_left_out_is_decided_by_the_image_and_measured_on_the_response() -> None:
    grid = Geometry.regular((20, 20, 20), (2.0, 2.0, 2.0))
    image = Volume(np.random.default_rng(1).normal(0, 500, grid.shape), grid)
    inside = Volume(np.ones(grid.shape, bool), grid)
    processing = Processing(keep=(-100.0, 300.0))
    region = prepare(image, inside, processing)
    seen = region.seen(filtered(image, processing, parse("mean:support=3")))
    kept = (image.array >= -100) & (image.array <= 300)
    assert len(seen.values) == kept.sum()
    assert np.allclose(np.sort(seen.values), np.sort(ndimage.uniform_filter(image.array, 3)[kept]))
    found = measure(seen, of_response(CT))
    assert not any(name.startswith("morph") for name in found)
    assert found["ih_max"] == 32
    assert of_response(DOSE).bins == 32
    shape = replace(DOSE, families=("morph",))
    with pytest.raises(ConfigError, match="morph"):
        of_response(shape)


def test_the_edge_of_an_interpolated_image_is_no_gap_for_a_filter() -> None:
    """A grid that reaches half a voxel past the image goes on as its edge: no response is lost to it."""
    grid = Geometry.regular((10, 10, 10), (3.0, 3.0, 3.0))
    response = filtered(Volume(np.full(grid.shape, 7.0), grid), Processing((2.0, 2.0, 2.0)), parse("mean:support=3"))
    assert np.allclose(response.array, 7.0)
