"""Training from a folder is training from its pack, bit for bit; its mean image is made once; damage is named."""

import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp.common.cli import compose
from alexnet_mp.common.disk import FolderLock
from alexnet_mp.data import folder as folder_module
from alexnet_mp.data import statistics_cache
from alexnet_mp.data.augmentation import Augmentation
from alexnet_mp.data.dataset import DataSet, Share
from alexnet_mp.data.folder import FolderSplit, open_folder
from alexnet_mp.data.load import DataSettings, load_data
from alexnet_mp.data.loader import Loader, LoaderSettings
from alexnet_mp.data.prepare.listing import Extent, Picture
from alexnet_mp.training.config import parse_train_settings
from tests.support.photographs import class_folders
from tests.support.preparation import COUNTS, prepared
from tests.support.short_runs import losses

SIZE = 20


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pictures are decoded here, and five at a time, so that a dozen of them is several tasks."""
    monkeypatch.setattr(statistics_cache, "usable_cores", lambda: 1)
    monkeypatch.setattr(folder_module, "PICTURES_A_TASK", 5)
    yield


def assert_equal(one: DataSet, two: DataSet) -> None:
    """Labels, pixels in their order, statistics and names are equal."""
    assert (one.class_names, one.splits.keys(), one.fingerprint()) == (
        two.class_names,
        two.splits.keys(),
        two.fingerprint(),
    )
    for name, array in vars(one.statistics).items():
        np.testing.assert_array_equal(array, getattr(two.statistics, name), strict=True)
    for name, images in one.splits.items():
        np.testing.assert_array_equal(images.labels, two.splits[name].labels, strict=True)
        pixels = [np.empty((len(images), *images.image_shape), dtype=np.uint8) for _ in range(2)]
        for data, out in zip((one, two), pixels, strict=True):
            data.splits[name].read(np.arange(len(images)), out)
        np.testing.assert_array_equal(*pixels)


def test_a_folder_is_its_pack_without_one(photos: Path, out: Path, cache: Path) -> None:
    prepared(photos, out, size=SIZE)
    pack = load_data(DataSettings("pack", str(out)), (3, 16, 16), 2)
    folder = load_data(DataSettings("folder", str(photos), size=SIZE, cache=str(cache)), (3, 16, 16), 2)
    assert_equal(folder, pack)
    assert [len(folder.splits[split]) for split in ("train", "validation", "test")] == list(COUNTS.values())
    assert folder.description == (
        f"{photos}, decoded as it is read to 20x20 in 2 classes: train 12, validation 4, test 2"
    )


def test_real_photographs_are_decoded_as_in_their_pack(tmp_path: Path, cache: Path) -> None:
    class_folders(tmp_path / "photos", of_each_class=1)
    prepared(tmp_path / "photos", tmp_path / "pack", size=64)
    pack = load_data(DataSettings("pack", str(tmp_path / "pack")), (3, 16, 16), 10)
    assert_equal(open_folder(tmp_path / "photos", 64, cache), pack)


def test_losses_of_twelve_steps_are_those_on_the_raw_pack(
    photos: Path, out: Path, cache: Path, tmp_path: Path, one_thread: None
) -> None:
    prepared(photos, out, size=SIZE)
    from_pack = losses(tmp_path / "one", "data=pack", f"data.path={out}")
    from_folder = losses(tmp_path / "two", "data=folder", f"data.path={photos}", "data.size=20", f"data.cache={cache}")
    assert from_folder == from_pack


def test_the_second_start_decodes_nothing_and_a_changed_picture_all(
    photos: Path, cache: Path, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = open_folder(photos, SIZE, cache)
    (kept,) = cache.glob("*/*")  # one file, and no trace of the making
    told = capsys.readouterr().err
    assert f"decoding the 18 pictures of {photos} once for their mean image and colors, kept in {kept}" in told
    assert re.search(r"decoded 18 pictures in \d+\.\d s, [\d,]+ images/s on 1 cores", told)
    assert len(made) == 5
    assert_equal(open_folder(photos, SIZE, cache), first)
    assert (len(made), capsys.readouterr().err) == (5, "")
    picture = next(photos.glob("train/cat/*.png"))
    os.utime(picture, ns=(0, 0))
    open_folder(photos, SIZE, cache)
    assert len(made) == 10
    picture.rename(picture.with_name("zz.png"))
    open_folder(photos, SIZE, cache)
    open_folder(photos, SIZE + 1, cache)
    assert (len(made), len(list(cache.iterdir()))) == (20, 4)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", None], ids=["empty", "not_an_archive", "cut_short"])
def test_a_damaged_file_of_the_cache_is_made_again(
    content: bytes | None, photos: Path, cache: Path, made: list[str]
) -> None:
    open_folder(photos, SIZE, cache)
    (kept,) = cache.glob("*/*")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-40] if content is None else content)
    open_folder(photos, SIZE, cache)
    assert len(made) == 10
    assert statistics_cache._read(kept, SIZE) is not None


def test_the_cache_is_the_users_own_unless_named(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    settings = parse_train_settings(compose("train", ["data=folder", f"data.path={photos}", "data.size=20"])).data
    load_data(settings, (3, 16, 16), 2)
    assert len(list((tmp_path / "xdg" / "alexnet_mp").iterdir())) == 1


def test_a_long_pass_says_how_long_it_takes(
    photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(statistics_cache, "_SECONDS_TO_ESTIMATE", 0.0)
    open_folder(photos, SIZE, cache)
    assert re.search(r"5 decoded, [\d,]+ images/s; [\d,]+ s more", capsys.readouterr().err)


def test_a_cache_that_cannot_be_written_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigurationError, match=r"cannot keep the mean image of .* in .*file; data\.cache=FOLDER names"
    ):
        open_folder(photos, SIZE, tmp_path / "file")


def test_of_several_one_makes_the_cache_and_the_others_wait(photos: Path, cache: Path, made: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: open_folder(photos, SIZE, cache), range(4)))
    assert len(made) == 5
    for other in found[1:]:
        assert_equal(found[0], other)


def test_who_waits_for_a_process_that_stands_still_gives_up(
    photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_folder(photos, SIZE, cache)
    (kept,) = cache.glob("*/*")
    kept.unlink()
    lock = kept.parent
    monkeypatch.setattr(statistics_cache, "SECONDS_OF_SILENCE", 0.3)
    with FolderLock(lock), pytest.raises(ConfigurationError, match=r"has the lock of .* and decoded nothing"):
        open_folder(photos, SIZE, cache)
    assert len(open_folder(photos, SIZE, cache).splits["train"]) == 12  # of a process that is gone no lock is left


def test_who_waits_for_a_process_that_goes_on_waits_on(
    photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, made: list[str]
) -> None:
    open_folder(photos, SIZE, cache)
    (kept,) = cache.glob("*/*")
    content, lock = kept.read_bytes(), kept.parent
    kept.unlink()
    monkeypatch.setattr(statistics_cache, "SECONDS_OF_SILENCE", 0.4)
    held = FolderLock(lock)

    def go_on() -> None:
        for _ in range(8):
            os.utime(lock)
            threading.Event().wait(0.1)
        kept.write_bytes(content)
        held.release()

    with ThreadPoolExecutor(1) as pool:
        maker = pool.submit(go_on)
        open_folder(photos, SIZE, cache)
        maker.result()
    assert len(made) == 5


@pytest.mark.parametrize("split", ["train", "val"])
def test_damaged_pictures_end_the_start_with_their_names(split: str, photos: Path, cache: Path) -> None:
    damaged = sorted((photos / split / "cat").iterdir())[:2]
    damaged[0].write_bytes(damaged[0].read_bytes()[:-300])
    damaged[1].write_bytes(b"")
    message = rf"2 of the 18 pictures of .* \({split}/cat/00\.png: damaged.*; {split}/cat/02\.png: an empty file\)"
    with pytest.raises(ConfigurationError, match=message):
        open_folder(photos, SIZE, cache)
    assert list(cache.glob("*/*")) == []


@pytest.mark.parametrize(
    "damage, message", [(b"x", "cannot decode .*: not an image"), (None, "cannot read .*: No such")]
)
def test_a_picture_damaged_after_the_start_ends_the_epoch_with_its_name(
    damage: bytes | None, message: str, photos: Path, cache: Path
) -> None:
    data = open_folder(photos, SIZE, cache)
    picture = photos / "train" / "dog" / "01.png"
    if damage is None:
        picture.unlink()
    else:
        picture.write_bytes(damage)
    loader = Loader(data, (16, 16), 4, Share(), 0)
    with pytest.raises(ConfigurationError, match=rf"{message}") as caught:
        list(loader.training(0))
    assert str(picture) in str(caught.value)


def test_what_is_no_such_folder_is_refused(photos: Path, out: Path, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.source=folder needs data\.path"):
        load_data(DataSettings("folder"), (3, 16, 16), 2)
    with pytest.raises(ConfigurationError, match=r"data\.path=.*nowhere is no folder"):
        open_folder(tmp_path / "nowhere", SIZE, cache)
    prepared(photos, out, size=SIZE)
    with pytest.raises(ConfigurationError, match=r"data\.path=.* is a pack; use data=pack"):
        open_folder(out, SIZE, cache)
    for split in ("val", "test"):
        (photos / split).rename(tmp_path / split)
    with pytest.raises(ConfigurationError, match=r"data\.path=.* has no pictures to validate on"):
        open_folder(photos, SIZE, cache)
    (photos / "val" / "cat").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"has no pictures for the split validation"):
        open_folder(photos, SIZE, cache)


def test_batches_are_the_same_for_any_number_of_threads(photos: Path, cache: Path) -> None:
    data, paper = open_folder(photos, SIZE, cache), Augmentation("random", flip=True)
    epochs = [
        list(Loader(data, (16, 16), 4, Share(), 0, paper, settings=LoaderSettings(threads)).training(1))
        for threads in (1, 4)
    ]
    for one, two in zip(*epochs, strict=True):
        assert one.labels.equal(two.labels) and one.pixels.equal(two.pixels)


def test_what_a_split_holds_is_a_hundred_bytes_a_picture() -> None:
    held = []
    for count in (1_000, 20_000):
        names = (f"train/n01440764/n01440764_{i:05d}.JPEG" for i in range(count))
        split = FolderSplit(
            [Picture(name, 0, Extent(f"/nowhere/imagenet/{name}", 0, 1, 0)) for name in names], 256, 10**8
        )
        arrays = [value for value in vars(split).values() if isinstance(value, np.ndarray | bytes)]
        held.append(sum(value.nbytes if isinstance(value, np.ndarray) else len(value) for value in arrays))
        assert not [value for value in vars(split).values() if isinstance(value, list | dict | set)]
        with pytest.raises(ConfigurationError, match=rf"cannot read .*_{count - 1:05d}\.JPEG"):
            split.read(np.array([count - 1]), np.empty((1, 256, 256, 3), dtype=np.uint8))
    assert held[1] - held[0] < 19_000 * 100
