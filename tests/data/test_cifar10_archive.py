"""CIFAR-10's archive gives every record with its label; another is refused; the download is verified."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp.data.pack import open_pack
from alexnet_mp.data.prepare.sources import cifar10
from tests.support.archives import Content, assert_the_same_pack, prepared, tar_of

CIFAR_NAMES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
RECORDS = 4


def cifar_content() -> Content:
    """An archive in CIFAR-10's layout, with four pictures a batch."""
    folder = "cifar-10-batches-bin"
    content = {f"{folder}/batches.meta.txt": b"airplane\nautomobile\nbird\n\n", f"{folder}/readme.html": b"<html>"}
    for seed, name in enumerate(CIFAR_NAMES):
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 256, (RECORDS, 3072), dtype=np.uint8)
        labels = rng.integers(0, 3, (RECORDS, 1), dtype=np.uint8)
        content[f"{folder}/{name}"] = np.concatenate([labels, pixels], axis=1).tobytes()
    return content


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(tar_of(cifar_content(), "w:gz"))
    return path


def test_cifar10s_archive_gives_every_record_with_its_label(cifar: Path, tmp_path: Path) -> None:
    prepared(cifar, tmp_path / "pack", size=32)
    pack = open_pack(tmp_path / "pack")
    assert pack.class_names == ("airplane", "automobile", "bird")
    assert {name: len(split) for name, split in pack.splits.items()} == {"train": 20, "test": 4}
    for split, names in (("train", CIFAR_NAMES[:5]), ("test", CIFAR_NAMES[5:])):
        images = np.empty((len(pack.splits[split]), 32, 32, 3), dtype=np.uint8)
        pack.splits[split].read(np.arange(len(images)), images)
        labels = pack.splits[split].labels.astype(np.uint8)
        found = {
            bytes([label]) + image.transpose(2, 0, 1).tobytes() for label, image in zip(labels, images, strict=True)
        }
        batches = b"".join(cifar_content()[f"cifar-10-batches-bin/{name}"] for name in names)
        assert found == {batches[i : i + 3073] for i in range(0, len(batches), 3073)}


def changed_cifar(name: str, change: Callable[[bytes], bytes]) -> bytes:
    content = cifar_content()
    key = f"cifar-10-batches-bin/{name}"
    content[key] = change(content[key])
    return tar_of(content, "w:gz")


BROKEN_CIFAR: dict[str, tuple[Callable[[], bytes], str]] = {
    "no_archive": (lambda: b"nothing", "is damaged, or cut short"),
    "cut_short": (lambda: tar_of(cifar_content(), "w:gz")[:20_000], "is damaged"),
    "a_batch_missing": (lambda: tar_of({"x/batches.meta.txt": b"a"}, "w:gz"), "it has no data_batch_1.bin"),
    "a_record_cut": (lambda: changed_cifar("data_batch_3.bin", lambda b: b[:-1]), "data_batch_3.bin has 12,291 bytes"),
    "a_batch_empty": (lambda: changed_cifar("test_batch.bin", lambda b: b""), "test_batch.bin has 0 bytes"),
    "a_label_too_large": (lambda: changed_cifar("data_batch_2.bin", lambda b: b"\x07" + b[1:]), "has a label 7"),
    "a_name_twice": (lambda: changed_cifar("batches.meta.txt", lambda b: b"cat cat dog"), "one name for every class"),
    "a_hostile_name": (lambda: tar_of({"/data_batch_1.bin": b""}, "w:gz"), "leads out of the archive; refused"),
}


@pytest.mark.parametrize("content, message", BROKEN_CIFAR.values(), ids=BROKEN_CIFAR)
def test_an_archive_that_is_not_cifar10_is_refused(content: Callable[[], bytes], message: str, tmp_path: Path) -> None:
    (tmp_path / "cifar.tar.gz").write_bytes(content())
    with pytest.raises(ConfigurationError, match=message):
        prepared(tmp_path / "cifar.tar.gz", tmp_path / "pack", size=32)
    assert not (tmp_path / "pack").exists()


@pytest.fixture
def site(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server in this process that has the archive, and a cache of its own."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(cifar.parent))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()  # looks so often for its end
        monkeypatch.setattr(cifar10, "URL", f"http://127.0.0.1:{server.server_port}/{cifar.name}")
        monkeypatch.setattr(cifar10.pooch, "os_cache", lambda name: cifar.parent / "cache" / name)
        yield cifar
        server.shutdown()


def test_cifar10_is_downloaded_once_and_verified(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(site.read_bytes()).hexdigest())
    prepared("cifar10", tmp_path / "first", size=32)
    site.unlink()
    prepared("cifar10", tmp_path / "again", size=32)
    assert_the_same_pack(tmp_path / "first", tmp_path / "again")


def test_a_download_of_other_bytes_is_refused(site: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot download http.*give source=PATH"):
        prepared("cifar10", tmp_path / "pack", size=32)


def test_a_download_that_fails_says_what_to_do_instead(site: Path, tmp_path: Path) -> None:
    site.unlink()
    with pytest.raises(ConfigurationError, match=r"cannot download http.*give source=PATH"):
        prepared("cifar10", tmp_path / "pack", size=32)


def test_the_published_archives_checksum_is_the_known_one() -> None:
    assert cifar10.SHA256 == "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    assert cifar10.URL == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
