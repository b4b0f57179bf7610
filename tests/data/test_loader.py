"""Batches are the same however they are read, nothing is left running, and what cannot be is said with its numbers."""

import os
import re
import threading
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alexnet_mp import ConfigurationError
from alexnet_mp.common.cli import compose
from alexnet_mp.data import loader as loader_module
from alexnet_mp.data.augmentation import Augmentation, ColorNoise
from alexnet_mp.data.dataset import DataSet, ImagesInMemory, Share, Statistics
from alexnet_mp.data.load import DataSettings, load_data
from alexnet_mp.data.loader import Loader, LoaderSettings
from alexnet_mp.data.preprocessing import Batch
from alexnet_mp.training.config import parse_train_settings
from tests.support.packs import LABELS, write_pack

CROP, BATCH = (5, 6), 8
PAPER = Augmentation("random", flip=True, color=ColorNoise(0.1, "root"))
SHARED = Augmentation("random", flip=True, shared_by=3, color=ColorNoise(0.1, "root", 1.1))


class Watched(ImagesInMemory):
    """Images that note what is read and what is forgotten."""

    def __init__(self, images: ImagesInMemory) -> None:
        super().__init__(images.pixels, images.labels)
        object.__setattr__(self, "reads", [])
        object.__setattr__(self, "forgotten", [])

    def read(self, rows: NDArray[Any], out: NDArray[np.uint8]) -> None:
        self.reads.append(rows.tolist())  # type: ignore[attr-defined]
        super().read(rows, out)

    def forget(self, rows: NDArray[Any]) -> None:
        self.forgotten.append(rows.tolist())  # type: ignore[attr-defined]


def data_set(train: int = 30, validation: int = 11, shape: tuple[int, int, int] = (9, 11, 3)) -> DataSet:
    """Random pixels, labeled with their number in the split."""
    rng = np.random.default_rng(0)
    splits = {
        name: ImagesInMemory(rng.integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count))
        for name, count in (("train", train), ("validation", validation))
    }
    return DataSet("random", "", ("one",), dict(splits), Statistics(np.zeros(shape), np.ones(3), np.eye(3)))


def watched() -> tuple[DataSet, Watched, Watched]:
    data = data_set()
    splits = {name: Watched(images) for name, images in data.splits.items() if isinstance(images, ImagesInMemory)}
    return DataSet("watched", "", ("one",), dict(splits), data.statistics), splits["train"], splits["validation"]


def loader(data: DataSet, share: Share = Share(), seed: int = 0, **more: Any) -> Loader:  # noqa: B008
    return Loader(data, CROP, BATCH, share, seed, **more)


def parts(batch: Batch) -> list[torch.Tensor]:
    assert batch.alphas is not None
    return [batch.labels, batch.pixels, batch.views.tops, batch.views.lefts, batch.views.flips, batch.alphas]


def epoch_of(replicas: int = 1, epoch: int = 0, **more: Any) -> list[list[torch.Tensor]]:
    """The global batches of an epoch, put together of the replicas' slices; each a list of tensors."""
    loaders = [loader(data_set(), Share(replica, replicas), **more) for replica in range(replicas)]
    steps = zip(*(one.training(epoch) for one in loaders), strict=True)
    return [[torch.cat(tensors) for tensors in zip(*map(parts, step), strict=True)] for step in steps]


def equal(one: list[list[torch.Tensor]], two: list[list[torch.Tensor]]) -> bool:
    return len(one) == len(two) and all(
        torch.equal(a, b) for first, second in zip(one, two, strict=True) for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("order", ["shuffled", "fixed"])
@pytest.mark.parametrize("augmentation", [PAPER, SHARED], ids=["each", "shared_by_3"])
def test_batches_are_the_same_for_any_replicas_threads_and_read_ahead(order: Any, augmentation: Augmentation) -> None:
    how = {"augmentation": augmentation, "order": order}
    expected = epoch_of(epoch=2, settings=LoaderSettings(threads=1, read_ahead=1), **how)
    assert len(expected) == 30 // BATCH
    for replicas, threads, read_ahead in product((1, 2, 4), (1, 3), (1, 7)):
        found = epoch_of(replicas, epoch=2, settings=LoaderSettings(threads, read_ahead), **how)
        assert equal(found, expected), (replicas, threads, read_ahead)


def test_two_loaders_with_one_seed_agree_and_another_seed_or_epoch_changes_all() -> None:
    first = epoch_of(augmentation=PAPER)
    assert equal(first, epoch_of(augmentation=PAPER))
    for other in (epoch_of(augmentation=PAPER, seed=1), epoch_of(augmentation=PAPER, epoch=1)):
        for one, two in zip(zip(*first, strict=True), zip(*other, strict=True), strict=True):
            assert not torch.equal(torch.cat(one), torch.cat(two))


def test_an_epoch_can_be_read_twice_and_after_another() -> None:
    one = loader(data_set(), augmentation=PAPER)
    first = [parts(batch) for batch in one.training(0)]
    list(one.training(1))
    assert equal([parts(batch) for batch in one.training(0)], first)


def test_a_batch_is_not_changed_by_the_ones_after_it() -> None:
    data = data_set()
    images = data.splits["train"].pixels  # type: ignore[attr-defined]
    batches = list(Loader(data, (9, 11), BATCH, Share(), 0, settings=LoaderSettings(1, 1)).training(0))
    for batch in batches:
        np.testing.assert_array_equal(batch.pixels.numpy(), images[batch.labels.numpy()])


@pytest.mark.parametrize("views", [1, 10])
@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_replicas_evaluate_every_image_of_a_split_once(replicas: int, views: Any) -> None:
    seen = []
    for replica in range(replicas):
        for batch in loader(data_set(), Share(replica, replicas)).evaluation("validation", views):
            assert len(batch.pixels) == views * len(batch.labels)
            assert len(batch.pixels) <= max(BATCH // replicas, views)
            seen += batch.labels.tolist()
    assert sorted(seen) == list(range(11))


@pytest.mark.parametrize("views", [1, 10])
def test_a_split_may_have_fewer_images_than_there_are_replicas(views: Any) -> None:
    shares = [
        [
            batch.labels.tolist()
            for batch in loader(data_set(validation=2), Share(replica, 4)).evaluation("validation", views)
        ]
        for replica in range(4)
    ]
    assert shares == [[[0]], [[1]], [], []]


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    assert loader_threads() == []
    yield
    assert loader_threads() == []


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_loader_that_is_abandoned_leaves_no_threads(taken: int) -> None:
    batches = loader(data_set(), settings=LoaderSettings(threads=3, read_ahead=2)).training(0)
    for _ in range(taken):
        next(batches)
    assert bool(loader_threads()) == bool(taken)
    del batches
    assert loader_threads() == []


@pytest.mark.usefixtures("no_threads_left")
def test_a_loop_that_breaks_or_ends_leaves_no_threads() -> None:
    source = loader(data_set(), settings=LoaderSettings(threads=3, read_ahead=2))
    for _ in source.training(0):
        break
    assert loader_threads() == []
    assert len(list(source.training(0))) == 3


@pytest.mark.parametrize("threads, read_ahead", [(1, 1), (3, 1), (3, 2)])
def test_no_more_is_read_than_was_taken_and_read_ahead_allows(threads: int, read_ahead: int) -> None:
    data, train, _ = watched()
    batches = Loader(data, CROP, 2, Share(), 0, settings=LoaderSettings(threads, read_ahead)).training(0)
    next(batches)
    next(batches)
    del batches
    assert 2 <= len(train.reads) <= 2 + read_ahead  # type: ignore[attr-defined]


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_shard_cut_short_while_training_is_the_callers_error_and_the_batches_before_it_come(
    tmp_path: Path, threads: int
) -> None:
    write_pack(tmp_path)  # eight training images in shards of 3, 1 and 4
    data = load_data(DataSettings("pack", str(tmp_path)), (3, 3, 3), 3)
    source = Loader(data, (3, 3), 2, Share(), 0, order="fixed", settings=LoaderSettings(threads, 4))
    os.truncate(tmp_path / "train/00002.npy", 128 + 2 * 4 * 4 * 3)  # images 6 and 7 are gone
    got = []
    with pytest.raises(ConfigurationError, match=r"train/00002\.npy has become shorter"):
        for batch in source.training(0):
            got += batch.labels.tolist()
    assert got == LABELS["train"][:6]


def test_what_was_just_used_is_forgotten_and_not_before() -> None:
    data, train, validation = watched()
    settings = LoaderSettings(threads=2, read_ahead=3, drop_behind=True)
    taken = []
    for batch in loader(data, settings=settings).training(0):
        taken.append(batch.labels.tolist())
        assert train.forgotten == taken  # type: ignore[attr-defined]
    assert len(taken) == 3
    assert validation.forgotten == []  # type: ignore[attr-defined]
    used = [batch.labels.tolist() for batch in loader(data, settings=settings).evaluation("validation", 10)]
    assert validation.forgotten == used  # type: ignore[attr-defined]


def test_nothing_is_forgotten_where_the_settings_say_so() -> None:
    data, train, _ = watched()
    list(loader(data, settings=LoaderSettings(drop_behind=False)).training(0))
    assert train.forgotten == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("memory, train_too", [(2 * 30 * 297, False), (2 * 30 * 297 - 1, True)])
def test_a_split_larger_than_half_of_the_memory_is_forgotten_by_itself(
    memory: int, train_too: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, train, validation = watched()  # images of 9 * 11 * 3 = 297 bytes; 30 and 11 of them
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": memory}.__getitem__)
    source = loader(data)
    list(source.training(0))
    list(source.validation())
    assert bool(train.forgotten) == train_too  # type: ignore[attr-defined]
    assert validation.forgotten == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "reading, training, said",
    [
        (4.0, 2.0, r"loader +1 images/s are read by 2 threads and the network could take 4; see loader\.threads"),
        (0.4, 4.0, None),  # less than a tenth of the time
        (2.0, 1.0, None),  # a short epoch
    ],
    ids=["waited", "did_not_wait", "short"],
)
def test_an_epoch_that_waited_for_images_says_how_many_are_read_and_could_be_taken(
    reading: float, training: float, said: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source, seconds = loader(data_set()), [0.0]
    batches = list(source.training(0))
    monkeypatch.setattr(loader_module.time, "perf_counter", lambda: seconds[0])

    def read() -> Iterator[Batch]:
        for batch in batches:
            seconds[0] += reading
            yield batch

    monkeypatch.setattr(source, "_ahead", lambda _: read())
    for _ in source.training(0):  # three batches of eight
        seconds[0] += training
    assert [bool(re.fullmatch(said or "", message)) for message in caplog.messages] == ([True] if said else [])


@pytest.mark.parametrize("crop, wanted", [((10, 11), "10x11"), ((9, 12), "9x12")])
def test_images_smaller_than_the_networks_are_refused_with_both_sizes(crop: tuple[int, int], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=f"image is {wanted} and those of random are 9x11"):
        Loader(data_set(), crop, BATCH, Share(), 0)
    Loader(data_set(), (9, 11), BATCH, Share(), 0)


def test_fewer_images_than_one_batch_are_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigurationError, match=r"recipe\.batch_size=8 is more than the 7 training images of random"):
        loader(data_set(train=7))
    assert len(list(loader(data_set(train=8)).training(0))) == 1


@pytest.mark.parametrize("override, number", [("threads=0", 0), ("read_ahead=0", 0), ("threads=-1", -1)])
def test_reading_with_no_thread_or_not_ahead_is_refused_with_the_number(override: str, number: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"loader\.{override.split('=')[0]} is {number}, must be positive"):
        parse_train_settings(compose("train", [f"loader.{override}"]))
