"""Sources as they circulate, made small in the real naming: every layout holds the same pictures.

A layout is a mapping of names to bytes; `//` in a name stands between an archive and its member.
"""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

Content = dict[str, bytes]

KEYS = ("n00000001", "n00000002")
WORDS = {"n00000001": "tench, Tinca tinca", "n00000002": "goldfish"}
IDS = {"n00000001": 2, "n00000002": 1}  # in another order than the wnids, as the real ones
MAPPING = "".join(f"{key} {words}\n" for key, words in WORDS.items()).encode()
SPLITS = ("train", "validation", "test")


def png(seed: int) -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(written, "PNG")
    return written.getvalue()


def plan(split: str) -> list[tuple[int, str, bytes]]:
    """The number, class and bytes of every picture of a split."""
    keys = {"train": KEYS * 3, "validation": (KEYS[1], KEYS[0], KEYS[1]), "test": KEYS}[split]
    return [(i, key, png(1000 * len(split) + i)) for i, key in enumerate(keys, start=1)]


def meta_mat(year: int) -> bytes:
    """A devkit's table: a struct array of synsets, the classes and, after them, a group that they belong to."""
    kinds: Any = [(f"ILSVRC{year}_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O")]
    rows = [(float(i), wnid, WORDS[wnid], "what it means") for wnid, i in IDS.items()]
    rows.append((3.0, "n00001740", "entity", "all"))
    written = io.BytesIO()
    savemat(written, {"synsets": np.array(sorted(rows), dtype=kinds).reshape(-1, 1)})
    return written.getvalue()


def truth(split: str) -> bytes:
    return "".join(f"{IDS[key]}\n" for _, key, _ in plan(split)).encode()


def devkit(year: int, archive: str) -> Content:
    folder = {2010: "devkit-1.0", 2012: "ILSVRC2012_devkit_t12"}[year]
    return {
        f"{archive}{folder}/readme.txt": b"as in the real one",
        f"{archive}{folder}/data/meta.mat": meta_mat(year),
        f"{archive}{folder}/data/ILSVRC{year}_validation_ground_truth.txt": truth("validation"),
    }


def train_name(i: int, key: str) -> str:
    return f"{key}_{i}.JPEG"


def flat_name(split: str, i: int, year: int = 2012) -> str:
    return f"ILSVRC{year}_{split.replace('validation', 'val')}_{i:08d}.JPEG"


def name(split: str, i: int, key: str) -> str:
    return train_name(i, key) if split == "train" else flat_name(split, i)


def class_folders(of: Callable[[str, int, str], str] = name, splits: tuple[str, ...] = SPLITS[:2]) -> Content:
    """The pictures in folders of classes; `of` names the files."""
    folders = {"train": "train", "validation": "val", "test": "test"}
    return {f"{folders[s]}/{key}/{of(s, i, key)}": data for s in splits for i, key, data in plan(s)}


def flat(labels: Content) -> Content:
    """Folders of classes to train on, and flat val/ and test/ beside what labels them."""
    there = {f"train/{key}/{train_name(i, key)}": data for i, key, data in plan("train")}
    for split, folder in (("validation", "val"), ("test", "test")):
        there |= {f"{folder}/{flat_name(split, i)}": data for i, _, data in plan(split)}
    return {**there, **labels}


def listed(line: str, head: str = "") -> bytes:
    return (head + "".join(line.format(flat_name("validation", i), k) for i, k, _ in plan("validation"))).encode()


def kaggle(archive: str = "") -> Content:
    solution = listed("{0},{1} 85 1 499 272\n", "ImageId,PredictionString\n").replace(b".JPEG", b"")
    inside = {f"ILSVRC/Data/CLS-LOC/{name}": data for name, data in flat({}).items()}
    inside |= {"LOC_val_solution.csv": solution, "LOC_synset_mapping.txt": MAPPING}
    inside["ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml"] = b"<annotation/>"
    return {archive + name: data for name, data in inside.items()}


def tiny_name(split: str, i: int, key: str) -> str:
    return train_name(i, key) if split == "train" else f"{split.replace('validation', 'val')}_{i}.JPEG"


def tiny(archive: str = "") -> Content:
    inside = {f"train/{key}/images/{train_name(i, key)}": data for i, key, data in plan("train")}
    inside |= {f"train/{key}/{key}_boxes.txt": b"a\t0\t0\t62\t63\n" for key in KEYS}
    inside |= {f"val/images/val_{i}.JPEG": data for i, _, data in plan("validation")}
    annotations = "".join(f"val_{i}.JPEG\t{key}\t0\t32\t44\t62\n" for i, key, _ in plan("validation"))
    inside["val/val_annotations.txt"] = annotations.encode()
    inside |= {f"test/images/test_{i}.JPEG": data for i, _, data in plan("test")}
    inside["wnids.txt"] = "".join(f"{key}\n" for key in reversed(KEYS)).encode()
    inside["words.txt"] = b"n00001740\tentity\n" + MAPPING.replace(b" ", b"\t", 1).replace(
        b"\nn00000002 ", b"\nn00000002\t"
    )
    return {f"{archive}tiny-imagenet-200/{name}": data for name, data in inside.items()}


def face_name(split: str, i: int, key: str) -> str:
    return f"{key}_{i}_{key}.JPEG" if split == "train" else flat_name(split, i).replace(".JPEG", f"_{key}.JPEG")


def hugging_face(suffix: str) -> Content:
    there = {}
    for i, key, data in plan("train"):
        there[f"data/train_images_{i % 2}{suffix}//{face_name('train', i, key)}"] = data
    for i, key, data in plan("validation"):
        there[f"data/val_images{suffix}//{face_name('validation', i, key)}"] = data
    for i, _, data in plan("test"):
        there[f"data/test_images{suffix}//{flat_name('test', i)}"] = data
    return there


def web_name(split: str, i: int, key: str) -> str:
    return name(split, i, key).replace(".JPEG", ".jpg")


def webdataset(json_labels: bool = False) -> Content:
    there = {}
    for split in SPLITS[:2]:
        for i, key, data in plan(split):
            sample = f"imagenet1k-{split}-{i % 2:04d}.tar//{web_name(split, i, key).removesuffix('.jpg')}"
            number = KEYS.index(key)
            there[f"{sample}.{'json' if json_labels else 'cls'}"] = (
                json.dumps({"label": number, "width": 6}).encode() if json_labels else str(number).encode()
            )
            there[f"{sample}.jpg"] = data
    return there


def ilsvrc2012() -> Content:
    there = {
        f"ILSVRC2012_img_train.tar//{key}.tar//{train_name(i, key)}": data
        for i, key, data in sorted(plan("train"), key=lambda each: each[1], reverse=True)
    }
    there |= {f"ILSVRC2012_img_val.tar//{flat_name('validation', i)}": data for i, _, data in plan("validation")}
    return there | devkit(2012, "ILSVRC2012_devkit_t12.tar.gz//")


def name_2010(split: str, i: int, key: str) -> str:
    return train_name(i, key) if split == "train" else flat_name(split, i, 2010)


def ilsvrc2010() -> Content:
    """All three splits; the first picture of each is damaged, and among the patches."""
    there: Content = {}
    for split in SPLITS:
        short = split.replace("validation", "val")
        for i, key, data in plan(split):
            folder = f"{key}.tar//" if split == "train" else f"{short}/"
            there[f"ILSVRC2010_images_{short}.tar//{folder}{name_2010(split, i, key)}"] = b"damaged" if i == 1 else data
            if i == 1:
                there[f"patch_images.tar//patch_images/{short}/{name_2010(split, i, key)}"] = data
    there["ILSVRC2010_test_ground_truth.txt"] = truth("test")
    return there | devkit(2010, "ILSVRC2010_devkit-1.0.tar.gz//")


def packed(archive: str, content: Content) -> bytes:
    """An archive of the kind that its name says."""
    written = io.BytesIO()
    if archive.endswith(".zip"):
        with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in content.items():
                file.writestr(name, data)
    else:
        with tarfile.open(fileobj=written, mode="w" if archive.endswith(".tar") else "w:gz") as tar:
            for name, data in content.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return written.getvalue()


def files_of(content: Content) -> Content:
    """The content with all archives packed, the innermost first."""
    found: Content = {}
    inside: dict[str, Content] = {}
    for name, data in content.items():
        archive, within, member = name.partition("//")
        if within:
            inside.setdefault(archive, {})[member] = data
        else:
            found[name] = data
    return {**found, **{archive: packed(archive, files_of(members)) for archive, members in inside.items()}}


def write(folder: Path, content: Content) -> Path:
    """Write a layout. Returns the archive if it is nothing but one, else the folder."""
    files = files_of(content)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(data)
    only = next(iter(files))
    return folder / only if len(files) == 1 and only != next(iter(content)) else folder


def imagenette() -> Content:
    return {f"imagenette2.tgz//./imagenette2/{name}": data for name, data in class_folders().items()}


DEVKIT = "ILSVRC2012_devkit_t12.tar.gz//"
VAL_TXT = listed("{0} {1}\n")
NUMBERS = VAL_TXT.replace(KEYS[0].encode(), b"0").replace(KEYS[1].encode(), b"1")

# The kind, the content, how its files are named, its splits.
LAYOUTS: dict[str, tuple[str, Content, Callable[[str, int, str], str], tuple[str, ...]]] = {
    "ilsvrc2012": ("ilsvrc", ilsvrc2012(), name, SPLITS[:2]),
    "ilsvrc2010": ("ilsvrc2010", ilsvrc2010(), name_2010, SPLITS),
    "kaggle": ("kaggle", kaggle(), name, SPLITS[:2]),
    "kaggle_zip": ("kaggle", kaggle("imagenet-object-localization-challenge.zip//"), name, SPLITS[:2]),
    "flat_beside_the_devkit": ("folder", flat(devkit(2012, DEVKIT)), name, SPLITS[:2]),
    "flat_beside_the_unpacked_devkit": ("folder", flat(devkit(2012, "")), name, SPLITS[:2]),
    "flat_beside_a_solution": ("folder", flat({"LOC_val_solution.csv": listed("{0},{1} 1\n")}), name, SPLITS[:2]),
    "flat_beside_a_list": ("folder", flat({"val.txt": VAL_TXT}), name, SPLITS[:2]),
    "flat_beside_numbers": ("folder", flat({"val/val.txt": NUMBERS}), name, SPLITS[:2]),
    "hugging_face_tar": ("hugging_face", hugging_face(".tar"), face_name, SPLITS[:2]),
    "hugging_face_tar_gz": ("hugging_face", hugging_face(".tar.gz"), face_name, SPLITS[:2]),
    "webdataset_cls": ("webdataset", webdataset(), web_name, SPLITS[:2]),
    "webdataset_json": ("webdataset", webdataset(json_labels=True), web_name, SPLITS[:2]),
    "tiny_imagenet": ("tiny_imagenet", tiny(), tiny_name, SPLITS[:2]),
    "tiny_imagenet_zip": ("tiny_imagenet", tiny("tiny-imagenet-200.zip//"), tiny_name, SPLITS[:2]),
    "imagenette_tgz": ("folder", imagenette(), name, SPLITS[:2]),
    "zip": ("folder", {f"photos.zip//{k}": v for k, v in class_folders().items()}, name, SPLITS[:2]),
    "tar": ("folder", {f"photos.tar//{k}": v for k, v in class_folders().items()}, name, SPLITS[:2]),
}
