"""Computes the mean image and color covariance of a split from whole-number sums, so that no order matters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet_mp.common.schema import from_mapping
from alexnet_mp.data.manifest import Color

MOST_IMAGES = 2**32 // 256  # of one shard: more could overflow a pixel's 32-bit sum
CHANNELS = range(3)

# A product of two bytes fits into 16 bits, and the sum of this many into 32: 65,536 * 255 * 255 < 2**32.
_PIXELS_A_SUM = 1 << 16


@dataclass
class Sums:
    """Sums over images: of every pixel, uint32 or uint64 [size, size, 3], and of the products of channel pairs.

    `products` [3, 3] has Python's whole numbers, which do not overflow.
    """

    pixels: NDArray[np.unsignedinteger]
    products: NDArray[np.object_]

    def add_images(self, images: NDArray[np.uint8]) -> None:
        """Count images [n, size, size, 3] in."""
        for image in images:
            np.add(self.pixels, image, out=self.pixels)
        pixels = images.reshape(-1, 3)
        for first in range(0, len(pixels), _PIXELS_A_SUM):
            self._add_products(pixels[first : first + _PIXELS_A_SUM])

    def _add_products(self, pixels: NDArray[np.uint8]) -> None:
        planes = [pixels[:, channel].astype(np.uint16) for channel in CHANNELS]
        for i in CHANNELS:
            for j in range(i, 3):
                total = int(np.multiply(planes[i], planes[j]).sum(dtype=np.uint32))
                self.products[i, j] += total
                if i != j:
                    self.products[j, i] += total

    def add(self, pixels: NDArray[np.unsignedinteger], products: Sequence[Sequence[int]]) -> None:
        """Count another shard's sums in."""
        np.add(self.pixels, pixels, out=self.pixels)
        self.products += np.array(products, dtype=object)


def no_sums(size: int, of: type[np.unsignedinteger]) -> Sums:
    """Sums of no image."""
    return Sums(np.zeros((size, size, 3), dtype=of), np.zeros((3, 3), dtype=object))


def mean_image(sums: Sums, count: int) -> NDArray[np.float64]:
    """The mean over `count` images, float64 [size, size, 3]."""
    return sums.pixels.astype(np.float64) / count


def color(sums: Sums, count: int) -> Color:
    """Principal components of RGB over all pixels of `count` images, on the 0..255 scale (paper §4.1).

    The covariance (divided by the number of pixels) is computed in whole numbers and rounded once. Of the two signs of
    an eigenvector, its component of the largest size is positive.
    """
    pixels = count * sums.pixels.shape[0] * sums.pixels.shape[1]
    totals = sums.pixels.sum(axis=(0, 1), dtype=np.uint64).astype(object)
    covariance = (pixels * sums.products - np.outer(totals, totals)) / pixels**2
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), CHANNELS])
    return from_mapping(Color, {"eigenvalues": values.tolist(), "eigenvectors": vectors.tolist()}, "color")
