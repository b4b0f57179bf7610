"""The digits, and the batches that replicas get of a data set."""

import pytest
import torch
from sklearn.datasets import load_digits

from alexnet_mp import ConfigurationError
from alexnet_mp.data.images import Batches, DataSet, Images, Share
from alexnet_mp.data.sources import load_data


def numbered(train: int, validation: int) -> DataSet:
    """Images whose every pixel is their number, so that a batch tells which images are in it."""

    def images(count: int) -> Images:
        numbers = torch.arange(count, dtype=torch.uint8)
        return Images(numbers.view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous(), numbers.long())

    return DataSet("numbered", "", ("a", "b"), images(train), images(validation))


def batches(share: Share = Share(), seed: int = 0, train: int = 22, validation: int = 11) -> Batches:  # noqa: B008
    return Batches(numbered(train, validation), 4, share, seed, pixel_divisor=2.0, dtype=torch.float64)


def order_of(source: Batches, epoch: int) -> list[list[int]]:
    return [batch.labels.tolist() for batch in source.training(epoch)]


def test_digits_are_all_the_scans_split_by_class():
    data = load_data("digits", (3, 16, 16), 10)
    assert (len(data.train), len(data.validation)) == (1437, 360)
    assert data.train.pixels.shape == (1437, 3, 16, 16)
    assert data.train.pixels.dtype == torch.uint8
    together = torch.cat([data.train.labels, data.validation.labels]).bincount()
    assert together.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # UCI's counts
    assert all(35 <= count <= 37 for count in data.validation.labels.bincount().tolist())


def test_digits_keep_their_grey_levels_when_not_enlarged():
    data = load_data("digits", (1, 8, 8), 10)
    pixels = torch.cat([data.train.pixels, data.validation.pixels]).double()
    # Sixteenths of full scale, rounded to whole pixel values; sums do not depend on the order of the split.
    expected = torch.from_numpy(load_digits().images * 255 / 16).round()
    assert pixels.sum().item() == expected.sum().item()


def test_a_network_with_other_classes_is_refused_with_the_fix():
    with pytest.raises(ConfigurationError, match=r"1000 classes and digits has 10; use network\.classes=10"):
        load_data("digits", (3, 16, 16), 1000)


def test_images_are_centred_on_the_mean_per_pixel_and_divided():
    batch = next(batches(train=22).training(0))
    expected = (batch.labels.double() - 10.5) / 2  # the mean of 0..21
    assert torch.equal(batch.images, expected.view(-1, 1, 1, 1).expand(-1, 3, 2, 2))


def test_an_epoch_has_every_image_at_most_once_in_an_order_keyed_by_seed_and_epoch():
    order = order_of(batches(), epoch=0)
    assert [len(batch) for batch in order] == [4] * 5
    flat = [label for batch in order for label in batch]
    assert len(set(flat)) == 20
    assert order_of(batches(), epoch=0) == order
    assert order_of(batches(), epoch=1) != order
    assert order_of(batches(seed=1), epoch=0) != order


def test_replicas_share_every_global_batch_in_order():
    whole = order_of(batches(), epoch=3)
    shares = [order_of(batches(Share(replica, 2)), epoch=3) for replica in range(2)]
    assert [first + second for first, second in zip(*shares, strict=True)] == whole


def test_replicas_validate_every_image_once():
    seen = [
        label
        for replica in range(3)
        for batch in batches(Share(replica, 3)).validation()
        for label in batch.labels.tolist()
    ]
    assert sorted(seen) == list(range(11))


def test_less_data_than_a_batch_is_refused_with_both_numbers():
    with pytest.raises(ConfigurationError, match="batch_size=4 is more than the 3 training images"):
        batches(train=3)
