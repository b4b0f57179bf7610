"""--help explains a command in a page, and what cannot be composed is answered in one line with an example."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from omegaconf import OmegaConf

from alexnet_mp.commands.main import COMMANDS, main
from alexnet_mp.common import cli
from alexnet_mp.common.help import help_text
from tests.support.presets import name_in, presets
from tests.support.processes import CHECKOUT

CONFIGURATIONS = sorted(
    {path.stem for path in (CHECKOUT / "launch").glob("*.py")}
    | {f"benchmark/{path.stem}" for path in (CHECKOUT / "conf" / "benchmark").glob("*.yaml")}
)


def leaves(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The dotted keys of a configuration, without rows of networks and tables of results."""
    for key, value in values.items():
        path = f"{above}{key}"
        if path in ("network.layers", "published"):
            continue
        yield path
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}.")


def composition(name: str) -> Mapping[str, Any]:
    with hydra.initialize_config_module("alexnet_mp.conf", version_base="1.3"):
        return OmegaConf.to_container(hydra.compose(name), resolve=False)  # type: ignore[return-value]


def keys_explained(text: str) -> set[str]:
    """The dotted keys at the beginning of a line, those within braces, and those below others."""
    found: set[str] = set()
    above = ""
    for line in text.split("\nKeys with")[1].splitlines():
        entry = re.match(r"  ( *)([a-z][\w.]*):( .*)?$", line)
        if not entry or len(entry[1]) > 4:
            continue
        key = f"{above}.{entry[2]}" if entry[1] else entry[2]
        found |= {key.rpartition(".")[0]} - {""}  # of a group, whose name heads its keys
        above = key if not entry[1] else above
        found.add(key)
        inside = re.match(r" (\{.*?\})(  |$)", entry[3] or "")
        if inside:
            found |= {f"{key}.{each}" for each in leaves(yaml.safe_load(inside[1]) or {})}
    return found


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_help_is_a_page_that_mentions_every_key_and_no_other(name: str) -> None:
    text = help_text(name)
    lines = text.splitlines()
    assert len(lines) <= 100
    assert [line for line in lines if len(line) > 100] == []
    assert keys_explained(text) == set(leaves(composition(name)))
    if "/" not in name:
        assert len(re.findall(r"^  (?:python|torchrun) .*launch/", text, re.MULTILINE)) == 3


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_help_names_the_presets_of_the_groups_that_the_command_reads(name: str) -> None:
    said = yaml.safe_load((CHECKOUT / "conf" / f"{name}.yaml").read_text()).get("defaults", [])
    groups = {group.lstrip("/") for each in said if isinstance(each, dict) for group in each}
    words, text = set(re.split(r"[\s,;=]+", help_text(name))), help_text(name)
    for group in groups - {"published@published"}:
        assert {name_in(group, path) for path in presets(group)} <= words
    for group in {"network", "recipe", "data", "experiment", "ablation", "sweep"} - groups:
        assert not re.search(rf"^{group}=", text, re.MULTILINE)


def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str, *arguments: str) -> list[Any]:
    """Code, standard output and standard error of a command that is not to be carried out."""
    monkeypatch.setattr(sys, "argv", [f"launch/{name}.py", *arguments])
    code = 0
    try:
        cli.run_command(name, lambda configuration: pytest.fail("carried out"))
    except SystemExit as ended:
        code = ended.code or 0  # type: ignore[assignment]
    return [code, *capfd.readouterr()]


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_printed_and_nothing_else_happens(
    flag: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, capfd, "describe", "network=nope", flag) == [0, help_text("describe") + "\n", ""]


ANSWERS = {
    "a word": (
        "describe",
        ["paper"],
        ["'paper' is not KEY=VALUE", "did you mean network=paper or recipe=paper?", "describe.py network="],
    ),
    "a path": ("evaluate", ["runs/digits"], ["'runs/digits' is not KEY=VALUE", "for example: ", "checkpoint="]),
    "a missing value": ("evaluate", [], ["checkpoint must be given", "python launch/evaluate.py checkpoint=runs"]),
    "two missing values": ("classify", [], ["checkpoint, pictures must be given", "classify.py checkpoint="]),
    "a missing value behind a flag": (
        "prepare",
        ["--config-dir", ".", "source=photos"],
        ["out must be given", "launch/prepare.py source="],
    ),
    "a wrong preset": ("describe", ["network=nope"], ["network is 'nope', not one of", "for example: network="]),
    "a wrong preset before Hydra": (
        "describe",
        ["network=nope", "--cfg", "job"],
        ["network is 'nope', not one of", "for example: network="],
    ),
    "a group that it has not": ("plan", ["recipe=paper"], ["unknown key 'recipe'", "network"]),
    "an unknown key before Hydra": ("plan", ["--cfg", "job", "foo=1"], ["unknown key 'foo'"]),
}


@pytest.mark.parametrize("name, arguments, says", ANSWERS.values(), ids=ANSWERS)
def test_what_cannot_be_composed_is_answered_in_one_line_with_an_example(
    name: str,
    arguments: list[str],
    says: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code, stdout, stderr = run(monkeypatch, capfd, name, *arguments)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert [each for each in says if each not in stderr] == [], stderr


def test_cfg_prints_a_configuration_in_which_values_are_missing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, stdout, _ = run(monkeypatch, capfd, "evaluate", "--cfg", "job")
    assert code == 0
    assert "checkpoint: ???" in stdout


Called = Callable[..., tuple[int, str, str]]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Called:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["/usr/bin/alexnet-mp", *arguments])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0  # type: ignore[assignment]
        return code, *capfd.readouterr()

    return call


def test_one_command_lists_the_others(called: Called) -> None:
    assert called() == called("--help")
    code, stdout, stderr = called("-h")
    assert (code, stderr) == (0, "")
    assert set(re.findall(r"^  (\w+) ", stdout, re.MULTILINE)) == set(COMMANDS)
    assert set(COMMANDS) == {path.stem for path in (CHECKOUT / "launch").glob("*.py")} | {"benchmark"}
    assert max(map(len, stdout.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_one_command_hands_over_to_each_with_the_names_that_it_has_there(name: str, called: Called) -> None:
    code, stdout, stderr = called(name, "--help")
    assert (code, stderr) == (0, "")
    assert stdout.startswith(f"alexnet-mp {COMMANDS[name][0]}: ")
    if name != "benchmark":
        assert f"  alexnet-mp {name} " in stdout or f" -m alexnet_mp.commands.{name} " in stdout
        assert "launch/" not in stdout.split("Keys with")[0]


def test_one_command_does_what_the_script_does(called: Called, tmp_path: Path) -> None:
    code, stdout, _ = called("describe", "network=paper", f"json={tmp_path / 'paper.json'}")
    assert (code, (tmp_path / "paper.json").exists()) == (0, True)
    assert "60,965,224" in stdout


def test_a_command_that_there_is_not_is_answered_in_one_line(called: Called) -> None:
    code, stdout, stderr = called("trian")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: the command is 'trian', not one of train, evaluate")
    assert stderr.endswith("did you mean 'train'?; for example: alexnet-mp describe network=paper\n")


def test_the_console_script_is_this_one() -> None:
    assert "alexnet-mp = alexnet_mp.commands.main:main" in (CHECKOUT / "setup.cfg").read_text()
