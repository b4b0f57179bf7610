"""No file evaluates text, unpickles, starts a shell or prints what it did not make printable: a walk over the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import CHECKOUT

# Calls that run what they are given, or unpickle it, or write where an archive says. `*` ends a name.
FORBIDDEN = {
    "evaluates text": ("eval", "exec", "compile", "__import__", "code.*", "runpy.*", "importlib.import_module"),
    "starts a shell": ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.*"),
    "unpickles": (
        *("pickle.*", "cPickle.*", "dill.*", "cloudpickle.*", "joblib.*", "shelve.*", "marshal.*"),
        *("pandas.read_pickle", "torch.hub.*", "torch.package.*", "torch.jit.load", "torch.export.load"),
        *("torch.serialization.*", "multiprocessing.connection.Client", "multiprocessing.connection.Listener"),
        *("multiprocessing.managers.*", "numpy.lib.format.read_array"),
    ),
    "unpickles what another process sent": (
        *("*.broadcast_object_list", "*.all_gather_object", "*.gather_object", "*.scatter_object_list"),
        *("*.send_object_list", "*.recv_object_list"),
    ),
    "makes any object that YAML names": (
        *("yaml.load", "yaml.load_all", "yaml.unsafe_load*", "yaml.full_load*", "yaml.UnsafeLoader", "yaml.FullLoader"),
        *("yaml.Loader", "hydra.utils.instantiate", "hydra.utils.call", "hydra.utils.get_*"),
    ),
    "writes where an archive says": ("*.extractall", "*.extract", "shutil.unpack_archive"),
}
PATTERNS = {
    what: re.compile("|".join(re.escape(name).replace(r"\*", ".*") for name in names))
    for what, names in FORBIDDEN.items()
}

REASONED = {
    ("src/alexnet_mp/commands/main.py", "importlib.import_module"): "the module is one of a fixed table",
    ("tests/commands/test_library.py", "exec"): "README's own example",
    ("tests/commands/test_library.py", "compile"): "the same",
    ("tests/support/processes.py", "runpy.run_path"): "the commands' own scripts, in the tests' process",
    (
        "tests/support/photographs.py",
        "file.extract",
    ): "zipfile keeps members inside of the folder, and it is a test's own",
}

# Files that send plain records between processes that this library has started itself, over pipes that no other
# process can open. The standard library pickles them.
OWN_PROCESSES = {
    "src/alexnet_mp/data/prepare/shards.py",
    "benchmarks/loader.py",
    "src/alexnet_mp/performance/benchmark/interleaved.py",
    "tests/support/processes.py",
}


def python_files() -> list[Path]:
    return sorted(
        path
        for folder in ("src", "launch", "benchmarks", "tests", "conf")
        for path in (CHECKOUT / folder).rglob("*.py")
    )


def names_of(tree: ast.AST) -> dict[str, str]:
    """What a file's own names stand for: `np` numpy, `load` torch.load."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return found


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """The whole name of what an expression names; of `x().load` the last part, as `*.load`."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return "*"


def breaches(source: str) -> Iterator[str]:
    """What a file's text calls or names that it must not, in words, with the line."""
    tree = ast.parse(source)
    names = names_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == "*" for alias in node.names):
            yield f"{node.lineno}: from {node.module} import *, so names cannot be followed"
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            name = dotted(node, names)
            yield from (f"{node.lineno}: {name} {what}" for what, known in PATTERNS.items() if known.fullmatch(name))
        if isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {problem}" for problem in problems_of_call(node, dotted(node.func, names)))


def problems_of_call(node: ast.Call, name: str) -> Iterator[str]:
    said = {keyword.arg: keyword.value for keyword in node.keywords}
    constant = {key: value.value for key, value in said.items() if isinstance(value, ast.Constant)}
    if name == "torch.load" and constant.get("weights_only") is not True:
        yield "torch.load without weights_only=True unpickles"
    if "allow_pickle" in said and constant.get("allow_pickle") is not False:
        yield f"{name} with allow_pickle unpickles"
    if name in ("numpy.load", "numpy.lib.npyio.NpzFile") and "allow_pickle" not in said:
        yield "numpy.load: say allow_pickle=False"
    if "shell" in said and constant.get("shell") is not False:
        yield f"{name} with a shell"
    if name.startswith("subprocess.") and None in said:
        yield f"{name} with **: shell=True could hide there"


def test_no_file_unpickles_evaluates_or_starts_a_shell() -> None:
    found = []
    for path in python_files():
        name = str(path.relative_to(CHECKOUT))
        allowed = [f" {what} " for file, what in REASONED if file == name]
        found += [f"{name}:{each}" for each in breaches(path.read_text()) if not any(what in each for what in allowed)]
    assert len(python_files()) > 200
    assert found == []


def test_records_between_processes_are_pickled_only_where_all_processes_are_our_own() -> None:
    senders = set()
    for path in python_files():
        tree = ast.parse(path.read_text())
        imported = set(names_of(tree).values())
        if any(
            re.match(r"(torch\.)?multiprocessing|concurrent\.futures\.(process\.)?(Broken)?Process", i)
            for i in imported
        ):
            senders.add(str(path.relative_to(CHECKOUT)))
    assert senders == OWN_PROCESSES


@pytest.mark.parametrize(
    "line",
    [
        "eval(x)",
        "f = exec",
        "import os\nos.system('ls')",
        "from os import system as s\ns('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import subprocess\nsubprocess.run('ls', shell=x)",
        "import subprocess\nsubprocess.run('ls', **more)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import pickle as p\np.loads(b)",
        "from pickle import Unpickler",
        "import yaml\nyaml.load(t, Loader=yaml.Loader)",
        "from hydra.utils import instantiate\ninstantiate(c)",
        "import torch.distributed as dist\ndist.broadcast_object_list(o)",
        "import tarfile\ntarfile.open(p).extractall()",
        "from os import *",
    ],
)
def test_the_walk_sees_it(line: str) -> None:
    if line == "from pickle import Unpickler":
        line += "\nUnpickler(file)"
    assert list(breaches(line))


def test_commands_print_names_from_files_only_as_text() -> None:
    for path in (CHECKOUT / "src/alexnet_mp/commands").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and dotted(node.func, {}) == "print":
                to_errors = any(keyword.arg == "file" for keyword in node.keywords)
                assert to_errors or path.name == "cli.py", f"{path.name}:{node.lineno}: show() instead of print()"
