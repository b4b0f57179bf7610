"""Archives made in memory, and packs of what lies in them."""

import io
import tarfile
from pathlib import Path
from typing import Any

from alexnet_mp.data.pack import open_pack
from alexnet_mp.data.prepare.prepare import PackSummary, prepare
from alexnet_mp.data.prepare.settings import PreparationSettings

Content = dict[str, bytes]


def prepared(source: Path | str, out: Path, **settings: Any) -> PackSummary:
    return prepare(PreparationSettings(source=str(source), out=str(out), workers=1, **settings))


def tar_of(content: Content, mode: str = "w", **options: Any) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode=mode, **options) as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return written.getvalue()


def pack_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.npy")}


def assert_the_same_pack(one: Path, other: Path) -> None:
    assert pack_files(one) == pack_files(other)
    first, second = open_pack(one).manifest, open_pack(other).manifest
    assert (first.class_names, first.splits, first.color) == (second.class_names, second.splits, second.color)
