"""Decodes a picture's bytes to uint8 [size, size, 3], by the rule that every pixel of a pack follows.

1. The first frame, turned as its EXIF orientation says.
2. RGB: gray is repeated; palettes are looked up; transparency is laid over white, as a page would show it; of 16 bits
   the upper 8 stay; CMYK is converted by Pillow, which takes it for inverted in a JPEG, as Adobe's programs write it.
   Color profiles are not applied.
3. The shorter side to `size`, the longer in proportion, rounded to the nearest pixel (half up). The paper (§2) names no
   filter. The authors' own tool of 2014 (cuda-convnet2, make-data/pyext/src/pyext.cpp) averages over areas to
   shrink and is bicubic to enlarge. Pillow's BILINEAR, whose triangle widens with the reduction, stands for the
   area here, because Pillow's BOX gives uneven weights at ratios that are no whole numbers; BICUBIC enlarges.
4. The center patch: (longer - size) // 2 pixels are cut off on the left or on top.

JPEGs are decoded at full size: libjpeg's scaled decoding is faster and gives other pixels.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

# What cameras and the web use; JPEG includes MPO, several of them in one file. Pillow knows more, among them formats
# that start other programs.
IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", *(("AVIF",) if features.check("avif") else ()))
SHRINK, ENLARGE = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
RULE = "pillow: exif, rgb over white, shorter side by bilinear (enlarged: bicubic), center patch; version 1"

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadPicture(Exception):
    """Bytes that do not become a picture; the message says why, in a few words."""


@contextmanager
def pillow_limits(max_pixels: int) -> Iterator[None]:
    """Let Pillow itself refuse pictures of more than twice `max_pixels`, and keep its warnings off the terminal."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def decode_image(content: bytes, size: int, max_pixels: int) -> NDArray[np.uint8]:
    """Decode the bytes of an image file by the rule above; call it within `pillow_limits`.

    Raises BadPicture for bytes that are empty, no image, damaged, cut short, or of more than `max_pixels` pixels, as
    they are or once enlarged.
    """
    if not content:
        raise BadPicture("an empty file")
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            _refuse_bomb(image.size, max_pixels, "it has")
            image.load()
            return fit(_to_rgb(_turned(image)), size, max_pixels)
    except UnidentifiedImageError as error:
        raise BadPicture("not an image of a known format") from error
    except Image.DecompressionBombError as error:
        raise BadPicture(f"more than the limit of {max_pixels:,} pixels") from error
    except (BadPicture, MemoryError):
        raise
    except Exception as error:  # damaged files make Pillow's readers raise nearly anything
        raise BadPicture(f"damaged: {' '.join(str(error).split()) or type(error).__name__}") from error


def decode_cifar10(content: bytes, size: int, max_pixels: int) -> NDArray[np.uint8]:
    """Decode 3,072 bytes, channel-major, 32x32 (CIFAR-10's binary version, by its author's page)."""
    pixels = np.frombuffer(content, dtype=np.uint8).reshape(3, 32, 32).transpose(1, 2, 0)
    return fit(Image.fromarray(np.ascontiguousarray(pixels)), size, max_pixels)


def fit(image: Image.Image, size: int, max_pixels: int) -> NDArray[np.uint8]:
    """The center patch uint8 [size, size, 3] of an RGB image whose shorter side is brought to `size`."""
    shorter = min(image.size)
    if shorter != size:
        width, height = ((2 * side * size + shorter) // (2 * shorter) for side in image.size)
        _refuse_bomb((width, height), max_pixels, "enlarged it would have")
        image = image.resize((width, height), SHRINK if shorter > size else ENLARGE)
    left, top = ((side - size) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _refuse_bomb(sides: tuple[int, int], max_pixels: int, having: str) -> None:
    width, height = sides
    if width * height > max_pixels:
        raise BadPicture(f"{having} {width} x {height} pixels, more than the limit of {max_pixels:,}")


def _turned(image: Image.Image) -> Image.Image:
    """The image the right way up; after `load`, because a PNG's EXIF may follow its pixels and Pillow turns TIFFs."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # EXIF that cannot be read says nothing about the pixels
        turn = None
    return image.transpose(turn) if turn is not None else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):  # 16 bits in one channel, by whatever name
        gray = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(gray.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadPicture("pixels are floating-point numbers, whose scale is not known")
    if image.has_transparency_data:
        transparent = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), transparent).convert("RGB")
    return image.convert("RGB")
