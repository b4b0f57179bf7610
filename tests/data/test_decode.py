"""Every kind of picture becomes the RGB that the rule promises; bytes that are no picture are named, never fatal."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from alexnet_mp.data.prepare.decode import BadPicture, decode_cifar10, decode_image, pillow_limits

LIMIT = 1_000_000
WIDTH, HEIGHT = 48, 32


def scene() -> Image.Image:
    """A smooth RGB picture without symmetry, as JPEG likes it."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return Image.fromarray(np.stack([x * 5, y * 7, 255 - x * 2 - y * 3], axis=-1).astype(np.uint8))


def file(image: Image.Image, kind: str, **options: object) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def decoded(content: bytes, size: int = HEIGHT, limit: int = LIMIT) -> NDArray[np.uint8]:
    with pillow_limits(limit):
        return decode_image(content, size, limit)


def center(image: Image.Image) -> NDArray[np.uint8]:
    """The center square of an RGB picture whose shorter side is right already."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_a_lossless_format_gives_the_pixels_themselves(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decoded(file(scene(), kind, **options)), center(scene()))


def test_gray_is_repeated() -> None:
    gray = scene().convert("L")
    np.testing.assert_array_equal(decoded(file(gray, "PNG")), np.repeat(center(gray)[..., np.newaxis], 3, axis=-1))


def test_one_bit_is_black_and_white() -> None:
    bits = scene().convert("1")
    expected = np.repeat(center(bits).astype(np.uint8)[..., np.newaxis] * 255, 3, axis=-1)
    np.testing.assert_array_equal(decoded(file(bits, "PNG")), expected)


def test_a_palette_is_looked_up() -> None:
    palette = scene().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    np.testing.assert_array_equal(decoded(file(palette, "PNG")), center(palette.convert("RGB")))


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [scene().convert("P", palette=Image.Palette.ADAPTIVE), Image.new("P", (WIDTH, HEIGHT))]
    content = file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decoded(content), center(frames[0].convert("RGB")))


def test_transparency_is_laid_over_white() -> None:
    alpha = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
    alpha[:, : WIDTH // 2] = 0
    transparent = scene()
    transparent.putalpha(Image.fromarray(alpha))
    expected = np.array(scene())
    expected[:, : WIDTH // 2] = 255
    np.testing.assert_array_equal(decoded(file(transparent, "PNG")), center(Image.fromarray(expected)))


def test_a_transparent_palette_entry_is_white() -> None:
    palette = Image.new("P", (WIDTH, HEIGHT), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.paste(0, (0, 0, WIDTH // 2, HEIGHT))
    found = decoded(file(palette, "PNG", transparency=0))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, -1].tolist() == [40, 50, 60]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_of_16_bits_the_upper_8_stay(kind: str) -> None:
    deep = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 42
    expected = np.repeat((deep >> 8).astype(np.uint8)[:, 8:40, np.newaxis], 3, axis=-1)
    np.testing.assert_array_equal(decoded(file(Image.fromarray(deep), kind)), expected)


def test_a_cmyk_jpeg_has_its_own_colors_not_their_inverse() -> None:
    found = decoded(file(scene().convert("CMYK"), "JPEG", quality=95))
    assert np.abs(found.astype(int) - center(scene())).mean() < 4


def test_a_name_says_nothing_about_the_format() -> None:
    # ILSVRC-2012 has a PNG that is named .JPEG; the decoder is given bytes alone.
    np.testing.assert_array_equal(decoded(file(scene(), "PNG")), center(scene()))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = file(scene(), kind, exif=exif.tobytes())
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    assert (expected.size == (HEIGHT, WIDTH)) == (orientation >= 5)
    np.testing.assert_array_equal(decoded(content), center(expected))


def test_exif_that_cannot_be_read_turns_nothing() -> None:
    content = file(scene(), "JPEG", exif=b"Exif\0\0" + b"\xff" * 40)
    np.testing.assert_array_equal(decoded(content), center(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("width, height, longer", [(500, 375, 341), (375, 500, 341), (3, 2, 384), (1000, 999, 256)])
def test_the_shorter_side_is_256_and_the_longer_rounded(width: int, height: int, longer: int) -> None:
    # 256 * 500 / 375 = 341.3; 256 * 3 / 2 = 384; 256 * 1000 / 999 = 256.3
    image = scene().resize((width, height))
    target = (longer, 256) if width > height else (256, longer)
    filter = Image.Resampling.BILINEAR if min(width, height) > 256 else Image.Resampling.BICUBIC
    np.testing.assert_array_equal(decoded(file(image, "PNG"), 256), center(image.resize(target, filter)))


def test_half_a_pixel_rounds_up() -> None:
    image = scene().resize((7, 4))  # to a shorter side of 2, the longer has 3.5
    expected = image.resize((4, 2), Image.Resampling.BILINEAR).crop((1, 0, 3, 2))
    np.testing.assert_array_equal(decoded(file(image, "PNG"), 2), np.asarray(expected))


def test_a_file_of_several_jpegs_gives_the_first() -> None:
    content = file(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])
    np.testing.assert_array_equal(decoded(content), center(Image.open(io.BytesIO(content))))


def test_cifar10s_bytes_are_channel_major() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    content = pixels.transpose(2, 0, 1).tobytes()
    np.testing.assert_array_equal(decode_cifar10(content, 32, LIMIT), pixels)
    enlarged = Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(decode_cifar10(content, 48, LIMIT), np.asarray(enlarged))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_claims(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b"\0"))
        + png_chunk(b"IEND", b"")
    )


def jpeg() -> bytes:
    return file(scene(), "JPEG")


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


NO_PICTURES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "an empty file"),
    "zeros": (lambda: bytes(5000), "not an image of a known format"),
    "text": (lambda: b"not a picture at all", "not an image"),
    "page_of_an_error": (lambda: b"<html><body>404 Not Found</body></html>", "not an image"),
    "random": (lambda: np.random.default_rng(0).bytes(5000), "not an image"),
    "jpeg_cut_in_its_pixels": (lambda: jpeg()[:-100], "damaged: .*truncated"),
    "jpeg_cut_in_its_header": (lambda: jpeg()[:30], "not an image|damaged"),
    "jpeg_of_two_bytes": (lambda: jpeg()[:2], "not an image|damaged"),
    "jpeg_with_wrong_magic": (lambda: b"\xff\xd7" + jpeg()[2:], "not an image"),
    "jpeg_without_pixels": (lambda: jpeg()[: jpeg().index(b"\xff\xda")] + b"\xff\xd9", "damaged"),
    "png_cut_in_half": (lambda: half(file(scene(), "PNG")), "damaged"),
    "png_with_a_damaged_checksum": (
        lambda: file(scene(), "PNG").replace(b"IDAT", b"IDAX"),
        "damaged|not an image",
    ),
    "png_without_its_pixels": (lambda: png_that_claims(32, 32), "damaged"),
    "png_bomb": (lambda: png_that_claims(60_000, 60_000), "more than the limit of 1,000,000"),
    "png_just_over_the_limit": (lambda: png_that_claims(1001, 1000), "1001 x 1000 pixels, more than the limit"),
    "strip_that_would_be_enlarged": (
        lambda: file(Image.new("RGB", (1, 2000)), "PNG"),
        "enlarged it would have 32 x 64000 pixels, more than the limit",
    ),
    "gif_of_a_header": (lambda: b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0), "damaged|not an image"),
    "gif_cut_in_half": (lambda: half(file(scene().convert("P"), "GIF")), "damaged"),
    "tiff_cut_in_half": (lambda: half(file(scene(), "TIFF")), "damaged|not an image"),
    "webp_cut_in_half": (lambda: half(file(scene(), "WEBP")), "damaged|not an image"),
    "bmp_cut_in_half": (lambda: half(file(scene(), "BMP")), "damaged"),
    "floating_point": (lambda: file(scene().convert("F"), "TIFF"), "floating-point"),
    "postscript_that_would_start_a_program": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\nshowpage\n",
        "not an image of a known format",
    ),
}


@pytest.mark.parametrize("content, reason", NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_is_no_picture_is_refused_with_its_reason(content: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(BadPicture, match=reason) as caught:
        decoded(content())
    assert "\n" not in str(caught.value)


def test_pillows_own_limit_is_back_after_use() -> None:
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(BadPicture):
        decoded(b"")
    assert before == Image.MAX_IMAGE_PIXELS
