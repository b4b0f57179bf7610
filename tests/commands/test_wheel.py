"""An sdist makes a wheel that, installed away from the checkout, finds every preset and every command, and trains."""

import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.processes import CHECKOUT, run_command, torchrun

pytestmark = pytest.mark.slow

GROUPS = ("network", "recipe", "data", "experiment", "ablation")

COMPOSE = """
import sys
from alexnet_mp.common.cli import compose
from alexnet_mp.training.config import parse_train_settings
for override in sys.argv[1:]:
    parse_train_settings(compose("train", [override]))
"""


def checkout_files() -> list[Path]:
    """The files that git does not ignore, relative to the checkout; skips the test where git cannot be asked."""
    if shutil.which("git") is None or not (CHECKOUT / ".git").exists():
        pytest.skip("not a git checkout, so which files belong to it is not known")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return [Path(name) for name in listed.stdout.split("\0") if name and (CHECKOUT / name).is_file()]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist of the checkout, made as `python -m build --sdist` makes it."""
    for tool in ("pip", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed, so nothing can be built")
    source, made = (tmp_path_factory.mktemp(name) for name in ("source", "sdist"))
    for name in checkout_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, source / name)
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    built = run_command([sys.executable, "-c", build, str(made)], source)
    assert built.code == 0, built.stdout + built.stderr
    (archive,) = made.glob("alexnet_mp-*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def installed(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a wheel of the sdist is installed in."""
    wheels, target = (tmp_path_factory.mktemp(name) for name in ("wheels", "target"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(sdist)]
    built = run_command(build, wheels)
    assert built.code == 0, built.stdout + built.stderr
    (wheel,) = wheels.glob("*.whl")
    finished = run_command([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], wheels)
    assert finished.code == 0, finished.stdout + finished.stderr
    return target


def python(installed: Path, cwd: Path, *arguments: str) -> str:
    """What Python prints, with the installed wheel first on its path."""
    finished = run_command([sys.executable, *arguments], cwd, PYTHONPATH=str(installed))
    assert finished.code == 0, finished.stderr
    return finished.stdout


def test_the_sdist_holds_the_checkout_but_for_what_serves_its_repository(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    left_out = {path.parts[0] for path in checkout_files() if path not in held}
    assert left_out == {".ci", ".github", ".gitignore"}


def test_the_package_is_the_wheels(installed: Path, tmp_path: Path) -> None:
    where = python(
        installed, tmp_path, "-c", "import alexnet_mp, alexnet_mp.conf as c; print(alexnet_mp.__file__, c.__file__)"
    )
    package, presets = map(Path, where.split())
    assert package == installed / "alexnet_mp" / "__init__.py"
    assert presets == installed / "alexnet_mp" / "conf" / "__init__.py"


def test_types_are_offered_to_users(installed: Path) -> None:
    assert (installed / "alexnet_mp" / "py.typed").is_file()


def test_the_wheel_holds_every_module_and_preset_of_the_checkout(installed: Path) -> None:
    package = installed / "alexnet_mp"
    expected = {
        path.relative_to("src/alexnet_mp") if path.parts[0] == "src" else path
        for path in checkout_files()
        if path.parts[0] in ("src", "conf") and path.suffix in (".py", ".yaml")
    }
    assert {path for path in expected if not (package / path).is_file()} == set()


def test_the_wheel_holds_nothing_but_the_package(installed: Path) -> None:
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} == {"alexnet_mp", "bin"}
    assert [path.name for path in (installed / "bin").iterdir()] == ["alexnet-mp"]  # the console script


def test_every_preset_composes_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    presets = [
        f"{path.parts[1]}={Path(*path.parts[2:]).with_suffix('').as_posix()}"
        for path in checkout_files()
        if path.parts[0] == "conf" and path.parts[1] in GROUPS and path.suffix == ".yaml"
    ]
    assert {preset.split("=")[0] for preset in presets} == set(GROUPS)
    python(installed, tmp_path, "-c", COMPOSE, *presets)


@pytest.mark.parametrize(
    "command", ["train", "describe", "convert", "prepare", "evaluate", "results", "plan", "plot", "check", "sweep"]
)
def test_every_command_is_a_module_of_the_wheel(command: str, installed: Path, tmp_path: Path) -> None:
    shown = python(installed, tmp_path, "-m", f"alexnet_mp.commands.{command}", "--help")
    assert f"alexnet-mp {command}" in shown


def test_describe_writes_where_it_is_called(installed: Path, tmp_path: Path) -> None:
    python(installed, tmp_path, "-m", "alexnet_mp.commands.describe", "network=paper", "json=cost.json")
    assert [path.name for path in tmp_path.iterdir()] == ["cost.json"]
    assert json.loads((tmp_path / "cost.json").read_text())["parameters"] == 60_965_224


def test_two_processes_of_the_wheel_train(installed: Path, tmp_path: Path) -> None:
    arguments = ["-m", "alexnet_mp.commands.train", "recipe.epochs=1", "device=cpu"]
    finished = torchrun(2, arguments, tmp_path, deadline=150, PYTHONPATH=str(installed))
    assert finished.code == 0, finished.stderr
    (summary,) = (tmp_path / "runs" / "digits").glob("*/summary.json")
    written = json.loads(summary.read_text())
    # 1,437 digits in batches of 64: 22 whole ones.
    assert (written["placement"], written["world_size"], written["steps"]) == ("distributed", 2, 22)
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
