"""Says how a command is used, for --help and in errors: from its YAML, whose comments explain every key."""

import re
import shlex
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from alexnet_mp.common.presets import configuration_path, preset_names, preset_path
from alexnet_mp.errors import ConfigurationError

_WIDTH = 100
_EXAMPLES = 3
_COLUMN = 26  # where comments begin, unless a key is longer
_FLAG = re.compile(r"--?(cfg|c|package|p|config-\w+|cp|cn|cd|experimental-rerun|info|i)=")  # of Hydra, with a value
_COMMAND = re.compile(r"(python|torchrun|OMP_NUM_THREADS=1 torchrun) ")


@dataclass(frozen=True)
class _Explained:
    """A YAML file: its opening comment line by line, its groups with their presets, and the lines with its keys."""

    opening: tuple[str, ...]
    groups: tuple[tuple[str, str | None], ...]
    body: tuple[str, ...]

    @property
    def commands(self) -> list[str]:
        """Those in the opening comment, each with its remark behind two spaces or more."""
        return [_as_started(line) for line in self.opening if _COMMAND.match(line)]


def asks_for_help(arguments: Sequence[str]) -> bool:
    """True for --help and -h; --hydra-help and the other flags of Hydra are Hydra's."""
    return "--help" in arguments or "-h" in arguments


def help_text(configuration_name: str) -> str:
    """What the command does, three examples, its keys with their comments, and the presets of its groups by name."""
    file = _read(configuration_path(configuration_name))
    words = [line for line in file.opening if not _COMMAND.match(line)]
    lines = _wrapped(f"alexnet-mp {configuration_name}: {' '.join(words)}", 0, 0)
    lines += ["", "Examples:"]
    for command in file.commands[:_EXAMPLES]:
        lines += _wrapped(re.sub(" {3,}", "   ", command), 2, 6)
    lines += [
        "",
        "Keys with their defaults; KEY=VALUE changes one, ??? must be given, --cfg job prints them all.",
    ]
    lines += _keys(file.body, "")
    for group, preset in file.groups:
        names = preset_names(group)
        if not names:  # a file of its own, with a table of results
            lines += ["", f"{group}: as in conf/{group}.yaml"]
            continue
        chosen = [f"{group}={preset}", "or one of"] if preset else [f"{group}=NAME:"]
        lines += ["", *_wrapped(" ".join([*chosen, ", ".join(each for each in names if each != preset)]), 0, 4)]
        if preset:
            path = preset_path(group, preset)
            keys = _read(path)
            is_global = "@package _global_" in path.read_text(encoding="utf-8")
            lines += _keys(keys.body, "" if is_global else f"{group}.")
    return "\n".join(lines)


def first_line(configuration_name: str) -> str:
    """What the command does, in a sentence or the beginning of it."""
    opening = _read(configuration_path(configuration_name)).opening[0]
    return textwrap.shorten(opening, _WIDTH - 13, placeholder=" ...")


def overrides_and_flags(configuration_name: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Apart from each other, in whatever order they stand; a flag's value is with the flags.

    Raises ConfigurationError, with an example, for an argument that is none of these, and for a key with dashes.
    """
    overrides, flags = list[str](), list[str]()
    for before, argument in zip(("", *arguments), arguments, strict=False):
        is_flag, is_override = argument.startswith("-"), "=" in argument or argument.startswith("~")
        if is_flag and "=" in argument and not _FLAG.match(argument):
            raise ConfigurationError(f"{argument} is no flag; keys have no dashes: {shlex.quote(argument.lstrip('-'))}")
        if not is_flag and not is_override and not before.startswith("-"):
            groups = _read(configuration_path(configuration_name)).groups
            meant = [f"{group}={argument}" for group, _ in groups if argument in preset_names(group)]
            near = f"; did you mean {' or '.join(meant)}?" if meant else ""
            raise ConfigurationError(f"{argument!r} is not KEY=VALUE{near}{for_example(configuration_name)}")
        (overrides if is_override and not is_flag and before not in ("--config-dir", "-cd") else flags).append(argument)
    return overrides, flags


def for_example(configuration_name: str, key: str = "") -> str:
    """`; for example: COMMAND`, an example of the command that gives `key` if there is one."""
    commands = [re.split(r"\s{2,}", line)[0] for line in _read(configuration_path(configuration_name)).commands]
    giving = [line for line in commands if re.search(rf"[ \"]{re.escape(key)}=", line)]
    return f"; for example: {(giving or commands)[0]}" if commands else ""


def _read(path: Path) -> _Explained:
    lines = path.read_text(encoding="utf-8").splitlines()
    opening = list(takewhile(lambda line: line.startswith("#"), lines))
    body, groups = lines[len(opening) :], []
    if "defaults:" in body:
        start = body.index("defaults:")
        inside = list(takewhile(lambda line: line.startswith(" "), body[start + 1 :]))
        body = body[:start] + body[start + 1 + len(inside) :]
        found = (re.match(r"  - /?([a-z]\w*)(?:@\w+)?(?:: *(\w+))?", line) for line in inside)
        groups = [(each[1], None if each[2] == "null" else each[2]) for each in found if each]
    said = tuple(line.removeprefix("#").strip() for line in opening if "@package" not in line)
    return _Explained(said, tuple(groups), tuple(body))


def _keys(body: Iterable[str], prefix: str) -> list[str]:
    """The lines of keys with their comments beside them, those of the top level behind `prefix`."""
    entries: list[tuple[str, str]] = []
    for line in takewhile(lambda line: line != "layers:", body):  # a network's rows are no settings, and the last key
        key, _, comment = (f"{line} ").partition("# ")
        key, comment = key.rstrip(), comment.strip()
        if key:
            entries.append((key if key.startswith(" ") else prefix + key, comment))
        elif comment and entries and (not entries[-1][0] or line.startswith(" ")):  # goes on
            entries[-1] = entries[-1][0], f"{entries[-1][1]} {comment}"
        elif comment:
            entries.append(("", comment))
    lines = []
    for key, comment in entries:
        if key:
            lines += _wrapped(f"{key:<{_COLUMN}}  {comment}".rstrip(), 2, _COLUMN + 4)
        else:
            lines += _wrapped(f"# {comment}", 2, 4)
    return lines


def _wrapped(text: str, first: int, others: int) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=" " * first,
        subsequent_indent=" " * others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _as_started(command: str) -> str:
    """A command of `launch/` as it is given where there is no checkout, if this one was."""
    if Path(sys.argv[0]).parent.name != "commands":
        return command
    command = re.sub(r"^python launch/(\w+)\.py", r"alexnet-mp \1", command)
    return re.sub(r"launch/(\w+)\.py", r"-m alexnet_mp.commands.\1", command)
