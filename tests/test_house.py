"""The house keeps its order: who may import whom, how many rooms there are, how large files and functions may be."""

import ast
import configparser
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import alexnet_mp

PACKAGE = Path(alexnet_mp.__file__).parent

# From the ground up. A room imports from the floors below its own, and from one beside it that does not import it.
FLOORS = (
    ("errors", "version"),
    ("common",),  # schema, command line, text, disk, host, GPU queries, keyed randomness
    ("data", "network"),  # packs, loaders, augmentation; tables, rows, costs
    ("parallel",),  # crossings, links, placement, mesh
    ("model", "checkpoint"),  # layers, stages, towers; files and conversions
    ("training",),  # recipe, optimizer, step, resume, run folder
    ("analysis", "sweep", "performance"),  # of checkpoints and runs; many runs; how fast
    ("commands",),
    ("__init__",),
)
LONGEST_FILE, LONGEST_FUNCTION, ALL_LINES = 330, 60, 23_942


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    first, *rest = path.relative_to(PACKAGE).parts
    return first if rest else first.removesuffix(".py")


def imports() -> Iterator[tuple[str, str, str]]:
    """(importing room, imported room, where) for every import of the package within it."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "alexnet_mp":
                modules = [node.module or ""]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names if alias.name.split(".")[0] == "alexnet_mp"]
            else:
                continue
            for module in modules:
                target = module.split(".")[1] if "." in module else "__init__"
                if target != room(path):
                    yield room(path), target, f"{path.relative_to(PACKAGE)}:{node.lineno}"


def test_no_import_points_up() -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    assert {room(path) for path in sources()} == set(floor)
    assert [arrow for arrow in imports() if floor[arrow[1]] > floor[arrow[0]]] == []


def test_no_two_packages_import_each_other() -> None:
    arrows = defaultdict(set)
    for importing, imported, _ in imports():
        arrows[importing].add(imported)

    def reached(start: str) -> set[str]:
        found, waiting = set(), [start]
        while waiting:
            for each in arrows[waiting.pop()] - found:
                found.add(each)
                waiting.append(each)
        return found

    assert [name for name in list(arrows) if name in reached(name)] == []


def test_the_root_has_few_rooms() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "errors", "version"}
    assert len([folder for folder in PACKAGE.iterdir() if folder.is_dir() and list(folder.rglob("*.py"))]) <= 11


def test_files_and_functions_are_short() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {str(path): count for path, count in lines.items() if count > LONGEST_FILE} == {}
    assert sum(lines.values()) <= ALL_LINES
    functions = [
        (node.name, (node.end_lineno or 0) - node.lineno + 1)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [each for each in functions if each[1] > LONGEST_FUNCTION] == []


def test_every_file_says_in_its_first_line_what_it_is_for() -> None:
    for path in sources():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_every_folder_is_a_package_of_the_wheel() -> None:
    settings = configparser.ConfigParser()
    settings.read(Path(__file__).parent.parent / "setup.cfg", encoding="utf-8")
    folders = {path.parent.relative_to(PACKAGE).parts for path in sources()}
    named = {".".join(("alexnet_mp", *parts)) for parts in folders} | {"alexnet_mp.conf"}
    assert set(settings["options"]["packages"].split()) == named


# A row of a table and its layer share a name, and so do the entry points of commands.
SHARED = {"main", "run", "AveragePool", "BatchNorm", "Dropout", "GlobalAveragePool", "LocalResponseNorm", "MaxPool"}
SHARED |= {"SpatialNorm"}


def test_one_name_means_one_thing() -> None:
    places = defaultdict(list)
    for path in sources():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in SHARED} == {}


@pytest.mark.parametrize("folder", [each for each in sorted(PACKAGE.iterdir()) if each.is_dir()], ids=lambda f: f.name)
def test_every_package_has_its_folder_of_tests(folder: Path) -> None:
    if list(folder.rglob("*.py")):
        assert list((Path(__file__).parent / folder.name).glob("test_*.py"))
