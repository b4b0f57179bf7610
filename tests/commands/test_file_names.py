"""Names of files as people have them: what Hydra's grammar cannot read comes back in quotes, which works when typed."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from alexnet_mp import ConfigurationError
from alexnet_mp.analysis.evaluate.settings import ClassifySettings
from alexnet_mp.common import cli
from alexnet_mp.common.cli import compose
from alexnet_mp.common.help import overrides_and_flags
from alexnet_mp.common.overrides import quoted_value
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.errors import PeerLost, Stopped

NAMES = {
    "spaces": "my photos/a b.jpg",
    "two spaces": "a  b.jpg",
    "parentheses": "photo (1).jpg",
    "parentheses alone": "photo(1)",
    "a parenthesis": "a(b.jpg",
    "an equals sign": "a=b.jpg",
    "two equals signs": "lr=0.1,wd=0.jpg",
    "a quote": "it's.jpg",
    "two quotes": "'a'.jpg",
    "double quotes": 'the "best".jpg',
    "a quote at the end": "a'",
    "a hash": "a#1.jpg",
    "a tilde": "a~1.jpg",
    "a tilde at the end": "backup.jpg~",
    "brackets": "a[1].jpg",
    "brackets at the beginning": "[2024] trip.jpg",
    "a bracket that opens": "a[1.jpg",
    "a bracket that closes": "a]",
    "braces": "a{1}.jpg",
    "a dollar sign": "a$1.jpg",
    "a comma": "a,b.jpg",
    "an ampersand": "a&b.jpg",
    "an exclamation mark": "a!.jpg",
    "a semicolon": "a;b.jpg",
    "a caret": "a^b.jpg",
    "a backquote": "a`b.jpg",
    "angle brackets": "<a>.jpg",
    "Korean": "고양이/사진.jpg",
    "Japanese and Chinese": "猫の写真.jpg",
    "accents": "été.jpg",
    "an emoji": "😀.jpg",
    "a backslash and a quote": "a\\'b.jpg",
    "a backslash at the end": "a (1)\\",
    "dots and dashes": "../a-b_c.d.jpg",
    "a percent sign": "100%.jpg",
    "a plus sign": "a+b.jpg",
    "an at sign": "run@best",
    "a colon": "12:30:00.jpg",
}


def settings(pictures: str) -> ClassifySettings:
    return from_mapping(ClassifySettings, compose("classify", ["checkpoint=x", pictures]), "")


def advised(message: str) -> str:
    """The last words of an error, as a shell would hand them over."""
    (argument,) = shlex.split(message.rpartition("quote the value: ")[2])
    return argument


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_is_read_or_comes_back_in_quotes_with_which_it_is(name: str) -> None:
    argument = f"pictures={name}"
    try:
        found = compose("classify", ["checkpoint=x", argument])
    except ConfigurationError as error:
        assert str(error).startswith(f"Hydra's grammar cannot read {argument}; ")
        assert "\n" not in str(error)
        found = compose("classify", ["checkpoint=x", advised(str(error))])
    assert found["pictures"] == name


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_in_quotes_is_the_name(name: str) -> None:
    assert OverridesParser.create().parse_override(f"pictures={quoted_value(name)}").value() == name


LISTS = {
    "[a b.jpg,c(1).jpg]": ["a b.jpg", "c(1).jpg"],
    "[고양이.jpg,a.jpg]": ["고양이.jpg", "a.jpg"],
    "[it's.jpg]": ["it's.jpg"],
    "[a#1.jpg,'b (2).jpg']": ["a#1.jpg", "b (2).jpg"],
}


@pytest.mark.parametrize("value, expected", LISTS.items(), ids=LISTS)
def test_of_a_list_the_members_are_quoted(value: str, expected: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compose("classify", ["checkpoint=x", f"pictures={value}"])
    assert compose("classify", ["checkpoint=x", advised(str(refused.value))])["pictures"] == expected


@pytest.mark.parametrize("value", ["[a,b", "{a: 1", "[a]]", "{a b}"])
def test_a_list_or_mapping_without_its_end_is_not_taken_for_a_name(value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compose("classify", ["checkpoint=x", f"pictures={value}"])
    assert "quote the value" not in str(refused.value)
    assert "\n" not in str(refused.value)


HOMES = {
    "~": "{}",
    "~/a.jpg": "{}/a.jpg",
    "[~/a.jpg,~/b.jpg]": ["{}/a.jpg", "{}/b.jpg"],
    "'~/a b.jpg'": "{}/a b.jpg",
    "./~/a.jpg": None,
    "'a ~/b'": "a ~/b",
}


@pytest.mark.parametrize("value, expected", HOMES.items(), ids=HOMES)
def test_a_tilde_is_the_home(value: str, expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    if expected is None:
        with pytest.raises(ConfigurationError, match="quote the value"):
            compose("classify", ["checkpoint=x", f"pictures={value}"])
        return
    found = compose("classify", ["checkpoint=x", f"pictures={value}"])["pictures"]
    home = "/home/someone"
    assert found == ([each.format(home) for each in expected] if isinstance(expected, list) else expected.format(home))


def test_a_tilde_deletes_a_key_as_ever() -> None:
    assert "size" not in compose("classify", ["checkpoint=x", "pictures=a.jpg", "~size"])


URLS = [
    "https://example.org/a.jpg",
    "HTTP://a/b?c=d&e=f",
    "s3://bucket/a b.jpg",
    "gs://b/c",
    "ftp://a/b",
    "file:///a.jpg",
]


@pytest.mark.parametrize("url", [*URLS, "[https://example.org/a.jpg]", "'https://example.org/a.jpg'"])
def test_a_url_is_refused_as_one(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is a URL; files are read from a disk: download it"):
        compose("classify", ["checkpoint=x", f"pictures={url}"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures by name alone, a list, and a folder of more."""
    for name in ("b.jpg", "a.JPEG", "c (1).png", "고양이.webp", "notes.txt", "below/d.jpg", "x[1].jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty" / "below").mkdir(parents=True)
    (tmp_path / "empty" / "below" / "e.jpg").touch()
    return tmp_path


FOUND = {
    "a folder": ("photos", ["a.JPEG", "b.jpg", "c (1).png", "x[1].jpg", "고양이.webp"]),
    "a pattern": ("photos/*.jpg", ["b.jpg", "x[1].jpg"]),
    "a pattern of a letter": ("photos/?.jpg", ["b.jpg"]),
    "a pattern over folders": ("photos/*/*.jpg", ["below/d.jpg"]),
    "a file": ("photos/b.jpg", ["b.jpg"]),
    "a file that looks like a pattern": ("'photos/x[1].jpg'", ["x[1].jpg"]),
    "a missing file": ("photos/missing.jpg", ["missing.jpg"]),
    "a list of each": ("[photos/b.jpg,photos/below,photos/*.JPEG]", ["b.jpg", "below/d.jpg", "a.JPEG"]),
}


@pytest.mark.parametrize("value, expected", FOUND.values(), ids=FOUND)
def test_pictures_are_files_folders_and_patterns(
    value: str, expected: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert [str(path) for path in settings(f"pictures={value}").paths] == [f"photos/{name}" for name in expected]
    absolute = value.replace("photos/", f"{folder}/photos/") if "photos/" in value else f"{folder}/{value}"
    assert [str(path) for path in settings(f"pictures={absolute}").paths] == [f"{folder}/photos/{n}" for n in expected]


@pytest.mark.parametrize("value", ["photos/*.gif", "empty", "none/*"])
def test_where_no_picture_is_it_is_said(value: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigurationError, match=f"no picture in pictures={value.replace('*', '.')}") as refused:
        _ = settings(f"pictures={value}").paths
    if value == "empty":
        advice = str(refused.value).rpartition(" ")[2]
        assert settings(advice).paths == [Path("empty/below/e.jpg")]


ORDERS = {
    "flags first": ["--cfg", "job", "network=paper", "network.towers=1"],
    "flags last": ["network=paper", "network.towers=1", "--cfg", "job"],
    "flags between": ["network=paper", "--cfg", "job", "network.towers=1"],
    "a flag with its value": ["--cfg=job", "network=paper", "network.towers=1"],
    "a short flag": ["-c", "job", "network=paper", "network.towers=1"],
    "flags on both sides": ["--cfg", "job", "network=paper", "--resolve", "network.towers=1"],
    "a flag without its value": ["--resolve", "network=paper", "network.towers=1", "-c", "job"],
}


@pytest.mark.parametrize("arguments", ORDERS.values(), ids=ORDERS)
def test_flags_stand_anywhere(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["launch/describe.py", *arguments])
    cli.run_command("describe", lambda configuration: pytest.fail("carried out"))
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    assert "name: paper\n  towers: 1\n" in stdout


def test_a_folder_of_presets_may_have_any_name(tmp_path: Path) -> None:
    given = ["--config-dir", f"{tmp_path}/a=b", "network=paper", "-cd", "c=d", "~json", "--info", "config"]
    overrides, flags = overrides_and_flags("describe", given)
    assert overrides == ["network=paper", "~json"]
    assert flags == ["--config-dir", f"{tmp_path}/a=b", "-cd", "c=d", "--info", "config"]


@pytest.mark.parametrize(
    "flag, key", {"--seed=1": "seed=1", "-seed=1": "seed=1", "--run_dir=a b": "'run_dir=a b'"}.items()
)
def test_a_key_with_dashes_is_explained(flag: str, key: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        overrides_and_flags("describe", ["network=paper", flag])
    assert str(refused.value) == f"{flag} is no flag; keys have no dashes: {key}"


ERRORS: dict[str, tuple[Exception, str, str]] = {
    "a mistake": (ConfigurationError("no such thing"), "0", "no such thing"),
    "a lost process": (PeerLost("rank 1 is gone"), "1", "rank 1: rank 1 is gone"),
    "a stop": (
        Stopped("stopped at step 3; the same command goes on"),
        "0",
        "stopped at step 3; the same command goes on",
    ),
}


@pytest.mark.parametrize("error, rank, said", ERRORS.values(), ids=ERRORS)
def test_torchruns_own_box_has_our_line(
    error: Exception, rank: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By torchrun's own reader: what it prints at the end, last but the border."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    def fail(configuration: object) -> None:
        raise error

    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(sys, "argv", ["launch/describe.py", "network=paper"])
    with pytest.raises(SystemExit):
        cli.run_command("describe", fail, of_all_processes=True)
    assert json.loads(file.read_text("utf-8"))["message"]["message"] == said
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(file))
    lines = str(ChildFailedError("train.py", {0: failure})).rstrip().splitlines()
    assert lines[-2] == f"  traceback : {said}"
    assert set(lines[-1]) == {"="}


def test_an_error_file_that_cannot_be_written_ends_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "missing" / "error.json"))
    monkeypatch.setattr(sys, "argv", ["launch/describe.py", "network=nope"])
    with pytest.raises(SystemExit) as ended:
        cli.run_command("describe", lambda configuration: None)
    assert ended.value.code == 2
