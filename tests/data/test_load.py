"""A pack's images come through to the batches, and one that is damaged or does not fit the network is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet_mp import ConfigurationError
from alexnet_mp.data.dataset import DataSet, Share
from alexnet_mp.data.load import DataSettings, load_data
from alexnet_mp.data.loader import Loader
from tests.support.packs import LABELS, pixels, write_manifest, write_pack


def of_pack(folder: Path, verify: bool = True, image: tuple[int, int, int] = (3, 3, 3), classes: int = 3) -> DataSet:
    return load_data(DataSettings("pack", str(folder), verify), image, classes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight training images of 4x4 in shards of 3, 1 and 4, two to validate on, three classes."""
    (tmp_path / "photos").mkdir()
    write_pack(tmp_path / "photos")
    return tmp_path / "photos"


def test_a_packs_images_labels_and_statistics_come_through(folder: Path) -> None:
    data = of_pack(folder)
    assert (data.name, data.class_names, data.held_out) == ("photos", ("cat", "dog", "owl"), "validation")
    assert "4x4 in 3 classes: train 8, validation 2" in data.description
    np.testing.assert_array_equal(data.statistics.mean_image, pixels("train").mean(axis=0))
    assert data.statistics.eigenvalues.tolist() == [3, 2, 1]
    batches = list(Loader(data, (4, 4), 4, Share(), 0, order="fixed").training(0))
    np.testing.assert_array_equal(torch.cat([batch.pixels for batch in batches]).numpy(), pixels("train"))
    assert torch.cat([batch.labels for batch in batches]).tolist() == LABELS["train"]


def test_a_pack_with_other_classes_than_the_network_is_refused_with_the_fix(folder: Path) -> None:
    message = r"the network has 1000 classes and photos has 3; use network\.classes=3"
    with pytest.raises(ConfigurationError, match=message):
        of_pack(folder, classes=1000)


def test_a_pack_with_other_channels_than_the_network_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="the network reads 1 channels and the images of photos have 3"):
        of_pack(folder, image=(1, 3, 3))


def test_a_pack_with_nothing_held_out_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["splits"]["validation"]
    write_manifest(folder, manifest)
    with pytest.raises(ConfigurationError, match="photos has no images to validate on"):
        of_pack(folder)


def test_a_pack_without_validation_is_validated_on_its_test_split(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["test"] = manifest["splits"].pop("validation")
    write_manifest(folder, manifest)
    data = of_pack(folder)
    assert data.held_out == "test"
    batches = list(Loader(data, (3, 3), 4, Share(), 0).validation())
    assert torch.cat([batch.labels for batch in batches]).tolist() == LABELS["validation"]


def test_a_pack_needs_a_path_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"needs data\.path"):
        load_data(DataSettings("pack"), (3, 3, 3), 3)
    with pytest.raises(ConfigurationError, match=r"nowhere/manifest\.json does not exist"):
        of_pack(tmp_path / "nowhere")


def test_digits_have_no_path() -> None:
    with pytest.raises(ConfigurationError, match=r"data\.path is 'photos', but data\.source=digits has none"):
        load_data(DataSettings("digits", "photos"), (3, 16, 16), 10)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_changed_pixel_is_found_only_with_verify(folder: Path, split: str) -> None:
    shard = folder / split / "00000.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert len(of_pack(folder, verify=False).splits[split]) == len(LABELS[split])
    with pytest.raises(ConfigurationError, match=rf"{split}/00000\.npy is damaged"):
        of_pack(folder, verify=True)
