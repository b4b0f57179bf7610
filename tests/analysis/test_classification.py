"""The most probable classes of images, against the softmax by its formula."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet_mp import build_model
from alexnet_mp.analysis.evaluate.classification import most_probable
from alexnet_mp.data.augmentation import Views
from alexnet_mp.data.dataset import Statistics
from alexnet_mp.data.preprocessing import Batch, InputScale, Preprocessing
from alexnet_mp.model.tower_model import TowerModel
from tests.support.checkpoints import narrow_network

MEAN = 100.0
DIVISOR = 20.0


@pytest.fixture
def model() -> TowerModel:
    """Evaluated in float64, with logits that differ enough for the order to be sure."""
    found = build_model(narrow_network(), seed=2, dtype=torch.float64)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(3)
    return found


def preprocessing() -> Preprocessing:
    statistics = Statistics(np.full((16, 16, 3), MEAN), np.ones(3), np.eye(3))
    return Preprocessing(statistics, (16, 16), InputScale(pixel_divisor=DIVISOR), torch.float64)


def batch(images: int, views: int = 1) -> Batch:
    pixels = torch.randint(256, (images * views, 16, 16, 3), generator=torch.Generator().manual_seed(1)).byte()
    zeros = torch.zeros(images * views, dtype=torch.long)
    return Batch(pixels, torch.zeros(images, dtype=torch.long), Views(zeros, zeros, zeros.bool()))


def softmax(model: TowerModel, given: Batch) -> torch.Tensor:
    """exp(x) / sum exp(x) of each crop, float64."""
    with torch.no_grad():
        exponentials = model.eval()((given.pixels.permute(0, 3, 1, 2).double() - MEAN) / DIVISOR).exp()
    return exponentials / exponentials.sum(dim=1, keepdim=True)


def test_the_five_largest_of_the_softmax_come_in_order(model: TowerModel) -> None:
    given = batch(6)
    probabilities, classes = most_probable(model, preprocessing(), given)
    expected = softmax(model, given)
    assert torch.allclose(probabilities, expected.gather(1, classes), rtol=1e-12)
    assert torch.equal(classes, expected.argsort(dim=1, descending=True)[:, :5])
    assert len({tuple(each) for each in classes.tolist()}) > 1  # the images differ


def test_views_of_an_image_are_averaged(model: TowerModel) -> None:
    given = batch(3, views=2)
    probabilities, classes = most_probable(model, preprocessing(), given, k=10)
    mean = softmax(model, given).view(3, 2, 10).mean(dim=1)
    assert torch.allclose(probabilities, mean.gather(1, classes), rtol=1e-12)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(3, dtype=torch.float64), rtol=1e-12)


def test_of_equal_classes_the_first_come_first() -> None:
    model = build_model(replace(narrow_network(), classes=200), dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    probabilities, classes = most_probable(model, preprocessing(), batch(2))
    assert classes.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert torch.allclose(probabilities, torch.full((2, 5), 1 / 200, dtype=torch.float64))


def test_the_model_stays_in_its_mode_and_dropout_is_off_meanwhile(model: TowerModel) -> None:
    model.train()
    first, second = (most_probable(model, preprocessing(), batch(2)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert model.training


def test_there_are_no_more_columns_than_classes(model: TowerModel) -> None:
    assert most_probable(model, preprocessing(), batch(2), k=50)[1].shape == (2, 10)
