"""A command line as people type it: flags anywhere, `~` for the home, and values that Hydra's grammar cannot read."""

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from alexnet_mp.errors import ConfigurationError

_FLAG = re.compile(r"--?(cfg|c|package|p|config-\w+|cp|cn|cd|experimental-rerun|info|i)=")  # of Hydra, with a value
_HOME = re.compile(r"(?<=[=\[,'\"])~(?=[/,\]'\"]|$)")
_URL = re.compile(r"[^=]*=\W*(https?|ftp|s3|gs|file)://", re.IGNORECASE)


def overrides_and_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Apart from each other, in whatever order they stand. Raises ConfigurationError for a key with dashes."""
    overrides, flags = list[str](), list[str]()
    for before, argument in zip(("", *arguments), arguments, strict=False):
        is_flag = argument.startswith("-") or not re.match(r"~|.*=", argument)  # or its value
        if is_flag and "=" in argument and not _FLAG.match(argument):
            raise ConfigurationError(f"{argument} is no flag; keys have no dashes: {shlex.quote(argument.lstrip('-'))}")
        (flags if is_flag or before in ("--config-dir", "-cd") else overrides).append(argument)
    return overrides, flags


def readable(overrides: Sequence[str]) -> list[str]:
    """The overrides with the home for `~`.

    Raises ConfigurationError for a URL, and for what Hydra's grammar cannot read, with the same in quotes.
    """
    found = [_HOME.sub(lambda _: str(Path.home()), given) for given in overrides]
    for override in found:
        key, _, value = override.partition("=")
        if _URL.match(override):
            raise ConfigurationError(f"{override} is a URL; files are read from a disk: download it, and name the file")
        if _is_read(override) or value[:1] == "{" or value.count("[") != value.count("]"):
            continue  # Hydra says what is wrong with a list or a mapping that lacks its end
        if _is_read(quoted := f"{key}={_in_quotes(value)}"):
            raise ConfigurationError(f"Hydra's grammar cannot read {override}; quote the value: {shlex.quote(quoted)}")
    return found


def _is_read(override: str) -> bool:
    with suppress(HydraException):
        return not OverridesParser.create().parse_override(override).is_sweep_override()
    return False


def _in_quotes(value: str) -> str:
    """A value in quotes; of a list, the members that need them."""
    if value[:1] + value[-1:] == "[]" and not Path(value).exists():
        return f"[{','.join(m if _is_read(f'key={m}') else _in_quotes(m) for m in value[1:-1].split(','))}]"
    return quoted_value(value[1:-1] if value[:1] in ("'", '"') and value[:1] == value[-1:] else value)


def quoted_value(text: str) -> str:
    """Text as a quoted value of Hydra's grammar, in which backslashes count before a quote alone."""
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + found[2].replace("'", "\\'"), text) + "'"
