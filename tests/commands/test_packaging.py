"""Packaging says the same as the code: dependencies, version, citation, and one script for all checks of CI."""

import ast
import configparser
import re
import sys
from importlib.metadata import packages_distributions

import yaml

from alexnet_mp import __version__
from tests.support.processes import CHECKOUT

SETTINGS = configparser.ConfigParser()
SETTINGS.read(CHECKOUT / "setup.cfg", encoding="utf-8")


def bounds(requirements: str) -> dict[str, str]:
    """The lower bound of every package in a list of setup.cfg; empty for one that has none."""
    found = [re.fullmatch(r"([\w-]+)(?:>=([\d.]+))?", line) for line in requirements.split()]
    return {match[1].lower(): match[2] or "" for match in found if match}


def test_every_package_that_the_library_imports_is_declared() -> None:
    extras = SETTINGS["options.extras_require"]
    declared = {
        *bounds(SETTINGS["options"]["install_requires"]),
        *(name for key in extras for name in bounds(extras[key])),
    }
    imported = set()
    for path in (CHECKOUT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    known = packages_distributions()
    others = imported - {"alexnet_mp", *sys.stdlib_module_names}
    assert {"torch", "scipy", "omegaconf"} <= others
    names = {name: {each.lower() for each in known.get(name, [name])} for name in others}
    assert [name for name, distributions in names.items() if not distributions & declared] == []


def test_every_dependency_has_a_lower_bound() -> None:
    assert [name for name, bound in bounds(SETTINGS["options"]["install_requires"]).items() if not bound] == []


def test_the_citation_and_the_changelog_are_of_this_version() -> None:
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == SETTINGS["metadata"]["license"]
    assert [author["family-names"] for author in citation["references"][0]["authors"]] == [
        *("Krizhevsky", "Sutskever", "Hinton"),
    ]
    assert f"\n## {__version__}" in (CHECKOUT / "CHANGELOG.md").read_text()


def test_github_runs_the_script_of_ci_and_nothing_else() -> None:
    (job,) = yaml.safe_load((CHECKOUT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
