"""The digits, and the batches that replicas get of a data set."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from alexnet_mp import ConfigurationError
from alexnet_mp.data.dataset import DataSet, ImagesInMemory, Share, Statistics
from alexnet_mp.data.load import DataSettings, load_data
from alexnet_mp.data.loader import Loader
from alexnet_mp.data.preprocessing import InputScale, Preprocessing

CPU = torch.device("cpu")


def numbered(train: int, validation: int) -> DataSet:
    """Images whose every pixel is their number, so that a batch tells which images are in it."""

    def images(count: int) -> ImagesInMemory:
        numbers = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
        return ImagesInMemory(np.tile(numbers, (1, 2, 2, 3)), np.arange(count))

    splits = {"train": images(train), "validation": images(validation)}
    mean = splits["train"].pixels.mean(axis=0, dtype=np.float64)
    return DataSet("numbered", "", ("a", "b"), splits, Statistics(mean, np.ones(3), np.eye(3)))


def loader(share: Share = Share(), seed: int = 0, train: int = 22, validation: int = 11, **settings) -> Loader:  # noqa: B008
    return Loader(numbered(train, validation), (2, 2), 4, share, seed, **settings)


def order_of(source: Loader, epoch: int) -> list[list[int]]:
    return [batch.labels.tolist() for batch in source.training(epoch)]


def test_digits_are_all_the_scans_split_by_class():
    data = load_data(DataSettings("digits"), (3, 16, 16), 10)
    train, validation = data.splits["train"], data.splits["validation"]
    assert (len(train), len(validation)) == (1437, 360)
    assert (train.pixels.shape, train.pixels.dtype) == ((1437, 16, 16, 3), np.uint8)
    together = np.bincount(np.concatenate([train.labels, validation.labels]))
    assert together.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # UCI's counts
    assert all(35 <= count <= 37 for count in np.bincount(validation.labels).tolist())


def test_digits_keep_their_gray_levels_when_not_enlarged():
    data = load_data(DataSettings("digits"), (1, 8, 8), 10)
    pixels = np.concatenate([split.pixels for split in data.splits.values()]).astype(float)
    # Sixteenths of full scale, rounded to whole pixel values; sums do not depend on the order of the split.
    assert pixels.sum() == np.round(load_digits().images * 255 / 16).sum()


def test_a_network_with_other_classes_is_refused_with_the_fix():
    with pytest.raises(ConfigurationError, match=r"1000 classes and digits has 10; use network\.classes=10"):
        load_data(DataSettings("digits"), (3, 16, 16), 1000)


def test_images_are_centerd_on_the_mean_per_pixel_and_divided():
    batch = next(loader(train=22).training(0))
    preprocess = Preprocessing(numbered(22, 1).statistics, (2, 2), InputScale(pixel_divisor=2), torch.float64)
    expected = (batch.labels.double() - 10.5) / 2  # the mean of 0..21
    assert torch.equal(preprocess(batch, CPU), expected.view(-1, 1, 1, 1).expand(-1, 3, 2, 2))


def test_an_epoch_has_every_image_at_most_once_in_an_order_keyed_by_seed_and_epoch():
    order = order_of(loader(), epoch=0)
    assert [len(batch) for batch in order] == [4] * 5
    flat = [label for batch in order for label in batch]
    assert len(set(flat)) == 20
    assert order_of(loader(), epoch=0) == order
    assert order_of(loader(), epoch=1) != order
    assert order_of(loader(seed=1), epoch=0) != order


def test_replicas_share_every_global_batch_in_order():
    whole = order_of(loader(), epoch=3)
    shares = [order_of(loader(Share(replica, 2)), epoch=3) for replica in range(2)]
    assert [first + second for first, second in zip(*shares, strict=True)] == whole


def test_replicas_validate_every_image_once():
    seen = [
        label
        for replica in range(3)
        for batch in loader(Share(replica, 3)).validation()
        for label in batch.labels.tolist()
    ]
    assert sorted(seen) == list(range(11))


def test_less_data_than_a_batch_is_refused_with_both_numbers():
    with pytest.raises(ConfigurationError, match="batch_size=4 is more than the 3 training images"):
        loader(train=3)


def test_a_replica_without_a_validation_image_has_no_batch():
    assert [len(list(loader(Share(replica, 3), validation=2).validation())) for replica in range(3)] == [1, 1, 0]
