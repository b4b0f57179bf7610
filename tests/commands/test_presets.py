"""Every preset composes, parses, and says how to run it and where it comes from."""

import re
import shlex
from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.training.config import TrainSettings, parse_train_settings
from tests.support.presets import composed, name_in, presets
from tests.support.processes import CHECKOUT

GROUPS = ("network", "recipe", "data", "experiment", "ablation")
PRESETS = [(group, name_in(group, path)) for group in GROUPS for path in presets(group)]


@cache
def settings(group: str, name: str) -> TrainSettings:
    """The quickstart's settings with another preset."""
    return parse_train_settings(composed("train", f"{group}={name}"))


@pytest.mark.parametrize("group, name", PRESETS, ids=["-".join(preset) for preset in PRESETS])
def test_every_preset_composes_and_parses(group: str, name: str) -> None:
    settings(group, name)


@pytest.mark.parametrize("path", presets("recipe"), ids=lambda path: path.stem)
def test_every_recipe_is_called_as_its_file(path: Path) -> None:
    assert settings("recipe", path.stem).recipe.name == path.stem


@pytest.mark.parametrize(
    "network, recipe",
    [(network.stem, recipe.stem) for network, recipe in product(presets("network"), presets("recipe"))],
)
def test_a_recipe_fits_every_network_that_has_the_layers_it_names(network: str, recipe: str) -> None:
    layers, read = settings("network", network).network.learned_layers, settings("recipe", recipe).recipe
    named = {name for milestone in read.schedule.milestones for name in milestone.layers or ()} | set(read.layers)
    if named <= set(layers):
        read.check(layers, replicas=1)
    else:
        with pytest.raises(ConfigurationError, match="the recipe names layer"):
            read.check(layers, replicas=1)


@pytest.mark.parametrize("path", presets("experiment"), ids=lambda path: path.stem)
def test_an_experiments_recipe_fits_its_network(path: Path) -> None:
    both = settings("experiment", path.stem)
    both.recipe.check(both.network.learned_layers, replicas=1)


@pytest.mark.parametrize("path", presets("experiment"), ids=lambda path: path.stem)
def test_what_an_experiment_says_is_in_force(path: Path) -> None:
    def assert_within(said: dict[str, Any], composed: Mapping[str, Any]) -> None:
        for key, value in said.items():
            if isinstance(value, dict):
                assert_within(value, composed[key])
            else:
                assert composed[key] == value, key

    said = yaml.safe_load(path.read_text())
    del said["defaults"]
    assert_within(said, composed("train", f"experiment={path.stem}"))


def test_the_quickstart_is_the_experiment_digits() -> None:
    assert composed("train") == composed("train", "experiment=digits")


def opening_comment(path: Path) -> list[str]:
    """The lines before the first that is no comment, without Hydra's package directive."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return lines


def commands(path: Path) -> list[str]:
    """The commands in the opening comment; two spaces or more end one and begin a remark on it."""
    found = [
        line for line in opening_comment(path) if re.match(r"(python|torchrun)\s.*\b(launch|benchmarks)/\w+\.py", line)
    ]
    return [re.split(r"\s{2,}", line)[0] for line in found]


COMMENTED = [path for group in (*GROUPS, "benchmark", "hardware_descriptions", "sweep", ".") for path in presets(group)]


@pytest.mark.parametrize("path", COMMENTED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_preset_opens_with_a_comment_that_has_a_command(path: Path) -> None:
    assert len(opening_comment(path)) > 1
    assert commands(path), path.read_text()[:500]


@pytest.mark.parametrize("path", COMMENTED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_commands_in_a_presets_comment_compose(path: Path) -> None:
    for command in commands(path):
        program, arguments = re.search(r"/(\w+)\.py(.*)", command).groups()  # type: ignore[union-attr]
        assert (CHECKOUT / "launch" / f"{program}.py").exists() or (CHECKOUT / "benchmarks" / f"{program}.py").exists()
        overrides = [
            argument for argument in shlex.split(arguments) if "=" in argument and not argument.startswith("-")
        ]
        for name in (program, f"benchmark/{program}"):
            if (CHECKOUT / "conf" / f"{name}.yaml").exists():
                composed(name, *overrides)


@pytest.mark.parametrize("path", presets("network") + presets("recipe"), ids=lambda path: path.stem)
def test_every_network_and_recipe_names_its_source(path: Path) -> None:
    assert any("Source: " in line for line in opening_comment(path))
