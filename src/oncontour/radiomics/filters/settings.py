"""What a filter is: typed settings, how they are written in a word of the command line or of a YAML file, and what they are called.

    log:sigma_mm=3    laws:kernels=L5E5E5:pool=max:energy=7    gabor:sigma_mm=5:lambda_mm=2:gamma=1.5:planes=true

A filter is its name and, after colons, settings that differ from its defaults. Letters of Laws kernels and of wavelets, and the orders of
a Riesz transform, are those of the image's axes i, j, k (x, y, z of a supine patient), as in the reference manual (arXiv 2006.05470).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite
from typing import ClassVar, Literal, TypeAlias

from oncontour.errors import ConfigError, nearest

Boundary: TypeAlias = Literal["zero", "nearest", "periodic", "mirror"]
"""What lies beyond the image: 0, its edge, the image again, or the image seen in a mirror along the faces of its outermost voxels."""
Pool: TypeAlias = Literal["none", "max", "mean"]
"""Over the right-angle rotations of the kernel, 24 in space and 4 in a slice: none, the largest response, or the mean."""
LAWS: dict[str, tuple[float, ...]] = {
    "L3": (1, 2, 1),
    "E3": (-1, 0, 1),
    "S3": (-1, 2, -1),
    "L5": (1, 4, 6, 4, 1),
    "E5": (-1, -2, 0, 2, 1),
    "S5": (-1, 0, 2, 0, -1),
    "W5": (-1, 2, 0, -2, 1),
    "R5": (1, -4, 6, -4, 1),
}
"""Laws' kernels: level, edge, spot, wave and ripple, before they are scaled to a length of 1 (IBSI-2 JTXT)."""
WAVELETS = ("haar", "db2", "db3", "coif1")


@dataclass(frozen=True, kw_only=True)
class _Filter:
    """What all filters have: ``boundary``, and whether they stay ``by_slice`` (2D)."""

    kind: ClassVar[str]
    boundary: Boundary = "mirror"
    by_slice: bool = False

    def __post_init__(self) -> None:
        _one_of("boundary", self.boundary, ("zero", "nearest", "periodic", "mirror"))

    @property
    def name(self) -> str:
        """The filter in a word that reads back as itself: its kind and what differs from the defaults."""
        differ = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        return ":".join([self.kind, *(f"{name}={_written(value)}" for name, value in differ)])

    @property
    def axes(self) -> int:
        return 2 if self.by_slice else 3


@dataclass(frozen=True, kw_only=True)
class Mean(_Filter):
    """The mean of a cube (a square) of ``support`` voxels to a side, an odd number (IBSI-2 S60F)."""

    kind: ClassVar[str] = "mean"
    support: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.support < 1 or self.support % 2 == 0:
            raise ConfigError(f"a support is an odd number of voxels, not {self.support}", where=self.kind)


@dataclass(frozen=True, kw_only=True)
class LaplacianOfGaussian(_Filter):
    """Laplacian of a Gaussian of ``sigma_mm``, cut off at ``cut_sd`` standard deviations (IBSI-2 L6PA).

    ``riesz``: the orders of a Riesz transform of the response, a digit an axis ("100"), or "" for none (IBSI-2 AYRS).
    """

    kind: ClassVar[str] = "log"
    sigma_mm: float = 1.5
    cut_sd: float = 4.0
    riesz: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self.kind, sigma_mm=self.sigma_mm, cut_sd=self.cut_sd)
        _orders(self.riesz, self.axes)


@dataclass(frozen=True, kw_only=True)
class Laws(_Filter):
    """A product of Laws' kernels, one an axis ("L5E5E5"; IBSI-2 JTXT), pooled over rotations, then the mean of absolute responses within
    a Chebyshev distance of ``energy`` voxels (IBSI-2 PQSD; 0 for the response itself).
    """

    kind: ClassVar[str] = "laws"
    kernels: str = "L5E5E5"
    pool: Pool = "max"
    energy: int = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = [self.kernels[n : n + 2] for n in range(0, len(self.kernels), 2)]
        if len(parts) != self.axes or not all(part in LAWS for part in parts):
            hint = f"one of {', '.join(LAWS)} for each axis, such as {'L5E5' if self.by_slice else 'L5E5E5'}"
            raise ConfigError(f"{self.kernels!r} are not {self.axes} of Laws' kernels", where=self.kind, hint=hint)
        _one_of("pool", self.pool, ("none", "max", "mean"))
        if self.energy < 0:
            raise ConfigError(f"a distance is 0 or more voxels, not {self.energy}", where=self.kind)

    @property
    def parts(self) -> tuple[tuple[float, ...], ...]:
        """The kernels of the axes i, j (k), as they stand in LAWS."""
        return tuple(LAWS[self.kernels[n : n + 2]] for n in range(0, len(self.kernels), 2))


@dataclass(frozen=True, kw_only=True)
class Gabor(_Filter):
    """Modulus of the response to a Gabor kernel in the slice (IBSI-2 Q88H).

    A wave of ``lambda_mm`` under a Gaussian of ``sigma_mm`` along it and ``sigma_mm / gamma`` across it, at ``theta_deg`` from the axis i
    towards j; with ``step_deg`` the mean over all angles in such steps; with ``planes`` the mean over the three orthogonal planes.
    """

    kind: ClassVar[str] = "gabor"
    by_slice: bool = True
    sigma_mm: float = 5.0
    lambda_mm: float = 2.0
    gamma: float = 1.5
    theta_deg: float = 0.0
    step_deg: float = 22.5
    planes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self.kind, sigma_mm=self.sigma_mm, lambda_mm=self.lambda_mm, gamma=self.gamma)
        if not isfinite(self.theta_deg):
            raise ConfigError(f"an angle is a number of degrees, not {self.theta_deg:g}", where=self.kind)
        if self.step_deg and not (1 <= self.step_deg <= 360 and abs(360 / self.step_deg - round(360 / self.step_deg)) <= 1e-9):
            raise ConfigError(f"steps are 1 degree or more and divide 360 (0 for one angle), not {self.step_deg:g}", where=self.kind)
        if not self.by_slice:
            raise ConfigError("its kernel lies in a plane", where=self.kind, hint="planes=true for the mean over three planes")


@dataclass(frozen=True, kw_only=True)
class Wavelet(_Filter):
    """A stationary separable wavelet: ``bands`` (L or H an axis) of ``family`` at ``level`` (IBSI-2 25BO), pooled over rotations."""

    kind: ClassVar[str] = "wavelet"
    family: str = "db3"
    bands: str = "LLH"
    level: int = 1
    pool: Pool = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("family", self.family, WAVELETS)
        _one_of("pool", self.pool, ("none", "max", "mean"))
        if len(self.bands) != self.axes or set(self.bands) - {*"LH"}:
            raise ConfigError(f"bands are {self.axes} letters L or H, not {self.bands!r}", where=self.kind)
        _level(self.kind, self.level)


@dataclass(frozen=True, kw_only=True)
class Simoncelli(_Filter):
    """The band-pass map of Simoncelli's non-separable wavelet at ``level`` (IBSI-2 PRT7); ``riesz`` as of LaplacianOfGaussian.

    Its kernel is as large as the image. The consensus values are of an image that goes on periodically, and so it does unless said; a
    mirrored one is filtered at the frequencies of its own samples, the same in all directions (``spectral._band_of_the_consensus``).
    """

    kind: ClassVar[str] = "simoncelli"
    boundary: Boundary = "periodic"
    level: int = 1
    riesz: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _level(self.kind, self.level)
        _orders(self.riesz, self.axes)


Filter: TypeAlias = Mean | LaplacianOfGaussian | Laws | Gabor | Wavelet | Simoncelli
FILTERS: dict[str, type[Filter]] = {one.kind: one for one in (Mean, LaplacianOfGaussian, Laws, Gabor, Wavelet, Simoncelli)}


def parse(word: str) -> Filter:
    """The filter that ``word`` describes (above). Raises ConfigError for an unknown filter or setting, and for what it cannot be."""
    kind, *given = word.strip().split(":")
    if kind not in FILTERS:
        raise ConfigError(f"there is no filter {kind!r}", where="filters", hint=nearest(kind, FILTERS) or f"one of {', '.join(FILTERS)}")
    known = {f.name: f.default for f in fields(FILTERS[kind])}
    values: dict[str, object] = {}
    for part in given:
        name, _, text = part.partition("=")
        if name not in known:
            raise ConfigError(f"{kind} has no setting {name!r}", where=f"filters: {word}", hint=f"there are {', '.join(known)}")
        values[name] = _parsed(text, known[name], f"filters: {word}")
    return FILTERS[kind](**values)  # type: ignore[arg-type]


def _parsed(text: str, default: object, where: str) -> object:
    """``text`` as a value of the kind that ``default`` has."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"a switch is true or false, not {text!r}", where=where)
        return text.lower() == "true"
    try:
        return int(text) if isinstance(default, int) else float(text) if isinstance(default, float) else text
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a number", where=where) from error


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is one of {', '.join(known)}, not {value!r}", where="filters")


def _positive(kind: str, **values: float) -> None:
    for name, value in values.items():
        if not (isfinite(value) and value > 0):
            raise ConfigError(f"{name} is greater than 0, not {value}", where=kind)


def _level(kind: str, level: int) -> None:
    if not 1 <= level <= 8:
        raise ConfigError(f"a level lies between 1 and 8, not {level}", where=kind)


def _orders(riesz: str, axes: int) -> None:
    if riesz and (len(riesz) != axes or not riesz.isdecimal() or not int(riesz)):
        raise ConfigError(f"orders of a Riesz transform are {axes} digits, not all 0, not {riesz!r}", where="filters")
