"""What a network reads of an image, against plain NumPy, and the recipes' whole chain from the loader on."""

from math import inf, nan
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from alexnet_mp import ConfigurationError
from alexnet_mp.common.presets import preset_path
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.data.augmentation import ColorNoise, Views
from alexnet_mp.data.dataset import DataSet, ImagesInMemory, Share, Statistics
from alexnet_mp.data.loader import Loader
from alexnet_mp.data.preprocessing import Batch, InputScale, Preprocessing
from alexnet_mp.training.recipe import Recipe

CPU = torch.device("cpu")
SHAPE, CROP = (13, 16, 3), (8, 9)  # so that crops lie 0..5 down and 0..7 right: the center one pixel off the middle
CENTER = (2, 3)
View = tuple[int, int, bool]


def statistics() -> Statistics:
    """A mean image whose every pixel differs, and principal components that are not axes."""
    rng = np.random.default_rng(1)
    eigenvectors, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return Statistics(rng.uniform(90, 150, SHAPE), np.array([14830.0, 1375.0, 389.0]), eigenvectors)


def data_set(train: int, validation: int = 4) -> DataSet:
    """Random pixels, labeled with their number in the split."""
    rng = np.random.default_rng(0)
    splits = {
        name: ImagesInMemory(rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8), np.arange(count))
        for name, count in (("train", train), ("validation", validation))
    }
    return DataSet("random", "", ("one",), splits, statistics())


def cropped(image: NDArray[Any], view: View) -> NDArray[Any]:
    top, left, flip = view
    crop = image[top : top + CROP[0], left : left + CROP[1]]
    return crop[:, ::-1] if flip else crop


def by_numpy(
    image: NDArray[np.uint8], view: View, scale: InputScale, color: ColorNoise | None, alpha: NDArray[Any] | None
) -> NDArray[np.float64]:
    """What the network reads of one image: [channels, height, width]. `alpha` [3] is the draw of the color noise."""
    known = statistics()
    if scale.mean == "pixel":
        # Of the whole image every pixel loses its own mean, before anything is cut out or mirrored.
        result = cropped(image - known.mean_image, view).copy()
    else:
        result = cropped(image, view) - cropped(known.mean_image, (*CENTER, False))
    if color is not None and alpha is not None:
        shift = np.zeros(3)
        for i in range(3):
            size = known.eigenvalues[i] if color.eigenvalues == "literal" else np.sqrt(known.eigenvalues[i])
            shift += float(alpha[i]) * size * known.eigenvectors[:, i]
        result = (result + shift) / color.divisor
    return (result / scale.pixel_divisor).transpose(2, 0, 1)


def seen(image: NDArray[np.uint8], crop: NDArray[np.uint8]) -> View:
    """Which view of the image these pixels are, found by trying all."""
    rooms = (range(SHAPE[0] - CROP[0] + 1), range(SHAPE[1] - CROP[1] + 1))
    views = [(top, left, flip) for top in rooms[0] for left in rooms[1] for flip in (False, True)]
    found = [view for view in views if np.array_equal(cropped(image, view), crop)]
    assert len(found) == 1
    return found[0]


def assert_agrees(batch: Batch, images: NDArray[np.uint8], scale: InputScale, color: ColorNoise | None) -> list[View]:
    """Compare a batch, preprocessed in float64, with NumPy; returns the views that are in its pixels."""
    preprocess = Preprocessing(statistics(), CROP, scale, torch.float64, color)
    result = preprocess(batch, CPU).numpy()
    assert result.shape == (len(batch.pixels), 3, *CROP)
    views = []
    for row, found in enumerate(result):
        image = images[batch.labels[row // batch.views_per_image]]
        views.append(seen(image, batch.pixels[row].numpy()))
        alpha = None if batch.alphas is None else batch.alphas[row].numpy()
        np.testing.assert_allclose(found, by_numpy(image, views[-1], scale, color, alpha), rtol=1e-12, atol=1e-12)
    return views


NOISES = {
    "no_noise": None,
    "root": ColorNoise(0.1, "root", 1.1),
    "literal": ColorNoise(0.1, "literal", 1.3),
    "undivided": ColorNoise(0.1, "root"),
}


@pytest.mark.parametrize("mean", ["pixel", "center"])
@pytest.mark.parametrize("pixel_divisor", [1, 58.5])
@pytest.mark.parametrize("color", NOISES.values(), ids=NOISES)
def test_every_image_is_what_plain_numpy_makes_of_it(mean: Any, pixel_divisor: float, color: ColorNoise | None) -> None:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (5, *SHAPE), dtype=np.uint8)
    expected: list[View] = [(0, 0, False), (5, 7, True), (1, 6, True), (4, 0, False), (*CENTER, True)]
    tops, lefts, flips = (torch.tensor(column) for column in zip(*expected, strict=True))
    pixels = np.stack([cropped(image, view) for image, view in zip(images, expected, strict=True)])
    alphas = torch.from_numpy(rng.normal(size=(5, 3))) if color else None
    batch = Batch(torch.from_numpy(pixels), torch.arange(5), Views(tops, lefts, flips), alphas)
    assert assert_agrees(batch, images, InputScale(pixel_divisor, mean), color) == expected


def test_the_division_of_noisy_images_is_left_out_where_there_is_no_noise() -> None:
    images = np.random.default_rng(2).integers(0, 256, (1, *SHAPE), dtype=np.uint8)
    zero, no = torch.tensor([0]), torch.tensor([False])
    pixels = torch.from_numpy(cropped(images[0], (0, 0, False))[None].copy())
    plain = Batch(pixels, zero, Views(zero, zero, no))
    noisy = Batch(pixels, zero, Views(zero, zero, no), torch.zeros(1, 3))
    preprocess = Preprocessing(statistics(), CROP, InputScale(), torch.float64, ColorNoise(0.1, "root", 1.1))
    torch.testing.assert_close(preprocess(plain, CPU), 1.1 * preprocess(noisy, CPU), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mean", ["pixel", "center"])
def test_the_ten_views_of_an_image_are_side_by_side_and_lose_the_mean_as_the_recipe_says(mean: Any) -> None:
    data = data_set(train=30, validation=7)
    images = data.splits["validation"].pixels
    rows = []
    for batch in Loader(data, CROP, 30, Share(), 0).evaluation("validation", views=10):
        assert batch.alphas is None
        assert batch.views_per_image == 10
        assert len(batch.pixels) <= 30
        places = [(0, 0), (0, 7), (5, 0), (5, 7), CENTER]
        ten = [(*place, flip) for flip in (False, True) for place in places]
        assert assert_agrees(batch, images, InputScale(1, mean), None) == ten * len(batch.labels)
        rows += batch.labels.tolist()
    assert rows == list(range(7))


def test_the_center_view_of_every_image_is_validated() -> None:
    data = data_set(train=30, validation=7)
    views = []
    for batch in Loader(data, CROP, 4, Share(), 0).validation():
        views += assert_agrees(batch, data.splits["validation"].pixels, InputScale(), None)
    assert views == [(*CENTER, False)] * 7


def test_one_image_is_made_for_a_device_that_holds_two_towers() -> None:
    data = data_set(train=4)
    batch = next(Loader(data, CROP, 4, Share(), 0).training(0))
    first, second = Preprocessing(statistics(), CROP, InputScale(), torch.float32).on_each(batch, [CPU, CPU])
    assert first is second
    assert first.dtype == torch.float32
    assert first.is_contiguous(memory_format=torch.channels_last)


def preset(name: str) -> Recipe:
    return from_mapping(Recipe, OmegaConf.to_container(OmegaConf.load(preset_path("recipe", name))), "recipe")


IMAGES = 2 * 128 + 40


def epoch_of(recipe: Recipe, epoch: int) -> tuple[list[int], list[View], list[list[float]] | None]:
    """Numbers, views and α of the images of an epoch, in order, every one compared with NumPy."""
    data = data_set(train=IMAGES)
    loader = Loader(data, CROP, recipe.batch_size, Share(), 0, recipe.augmentation, recipe.order)
    numbers: list[int] = []
    views: list[View] = []
    alphas: list[list[float]] = []
    noisy = []
    for batch in loader.training(epoch):
        views += assert_agrees(batch, data.splits["train"].pixels, recipe.input, recipe.augmentation.color)
        numbers += batch.labels.tolist()
        noisy.append(batch.alphas is not None)
        alphas += [] if batch.alphas is None else batch.alphas.tolist()
    assert len(numbers) == 256
    assert len(set(noisy)) == 1
    return numbers, views, alphas if noisy[0] else None


@pytest.mark.parametrize("epoch, noise", [(0, True), (66, True), (67, False), (89, False)])
def test_original_2012_shares_views_by_32_visits_in_order_and_ends_the_noise(epoch: int, noise: bool) -> None:
    numbers, views, alphas = epoch_of(preset("original_2012"), epoch)
    # Epochs count from 0 and use 256 images each; every one goes on where the one before stopped.
    assert numbers == [(256 * epoch + position) % IMAGES for position in range(256)]
    groups = [set(views[first : first + 32]) for first in range(0, 256, 32)]
    assert [len(group) for group in groups] == [1] * 8
    assert len(set.union(*groups)) > 4  # eight draws of 6 * 8 * 2 views
    # After epoch 67 there is no noise, and the comparison with NumPy shows that nothing is divided by 1.1 either.
    assert (alphas is not None) == noise
    if alphas is not None:
        assert len(set(map(tuple, alphas))) == 256


def test_original_2012_divides_by_1_1_until_epoch_67() -> None:
    color = preset("original_2012").augmentation.color
    assert color is not None
    assert (color.divisor, color.eigenvalues, color.std, color.until_epoch) == (1.1, "root", 0.1, 67)


def test_paper_draws_for_every_image_in_a_new_order_each_epoch_and_the_noise_stays() -> None:
    recipe = preset("paper")
    epochs = [epoch_of(recipe, epoch) for epoch in (0, 1, 89)]
    for numbers, views, alphas in epochs:
        assert len(set(numbers)) == 256
        assert len(set(views)) > 64  # of 96; neighbors that shared would have fewer
        assert alphas is not None and len(set(map(tuple, alphas))) == 256
    orders = [tuple(numbers) for numbers, _, _ in epochs]
    assert len(set(orders)) == 3
    assert tuple(range(256)) not in orders
    of_image = [dict(zip(numbers, views, strict=True)) for numbers, views, _ in epochs[:2]]
    common = of_image[0].keys() & of_image[1].keys()
    assert sum(of_image[0][number] == of_image[1][number] for number in common) < len(common) / 4


@pytest.mark.parametrize("divisor", [0.0, -1.0, nan, inf])
def test_a_pixel_divisor_that_cannot_be_is_refused(divisor: float) -> None:
    with pytest.raises(ConfigurationError, match=f"input.pixel_divisor is {divisor}, must "):
        from_mapping(InputScale, {"pixel_divisor": divisor}, "input")
