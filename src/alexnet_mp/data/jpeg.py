"""JPEG files of square RGB images: how a pack's are written, and how they are read back."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode_jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """A baseline JPEG file of `pixels` [height, width, 3]; Pillow halves the resolution of color (4:2:0)."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def decode_jpeg(content: bytes | bytearray, out: NDArray[np.uint8]) -> None:
    """Decode a file of `encode_jpeg` into `out` [height, width, 3]; libjpeg works without the interpreter's lock.

    Raises ValueError if the bytes are damaged, or are another kind of picture or one of another size.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if (image.height, image.width) != out.shape[:2] or image.mode != "RGB":
                raise ValueError(f"it is {image.width}x{image.height} in {image.mode}")
            out[...] = np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(out.shape)
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
