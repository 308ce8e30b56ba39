"""An image's response to a filter.

respond(case.images["dose"].array, spacing_mm, LaplacianOfGaussian(sigma_mm=3))
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from oncontour.radiomics.filters.separable import MODES, laplacian, laws, wavelet
from oncontour.radiomics.filters.settings import Filter, Gabor, LaplacianOfGaussian, Laws, Mean, Wavelet
from oncontour.radiomics.filters.spectral import gabor, riesz_laplacian, simoncelli

Floats = NDArray[np.float64]


def respond(array: NDArray[np.generic], spacing_mm: Sequence[float], asked: Filter) -> Floats:
    """The response (k, j, i) of an image (k, j, i) without gaps to a filter, float64; ``spacing_mm`` along (k, j, i).

    Source: IBSI reference manual on convolutional filters, arXiv 2006.05470; every reference response map is met (docs/ibsi.md).
    """
    image = np.ascontiguousarray(array, np.float64)
    if isinstance(asked, Mean):
        size = (1,) * (3 - asked.axes) + (asked.support,) * asked.axes
        return np.asarray(ndimage.uniform_filter(image, size, mode=MODES[asked.boundary]))
    if isinstance(asked, LaplacianOfGaussian):
        return riesz_laplacian(image, spacing_mm, asked) if asked.riesz else laplacian(image, spacing_mm, asked)
    if isinstance(asked, Laws):
        return laws(image, asked)
    if isinstance(asked, Gabor):
        return gabor(image, spacing_mm, asked)
    return wavelet(image, asked) if isinstance(asked, Wavelet) else simoncelli(image, asked)
