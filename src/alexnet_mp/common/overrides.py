"""Overrides as people type them: `~` for the home, no URLs, and values that Hydra's grammar cannot read."""

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from alexnet_mp.errors import ConfigurationError

_HOME = re.compile(r"(?<=[=\[,'\"])~(?=[/,\]'\"]|$)")
_URL = re.compile(r"[^=]*=\W*(https?|ftp|s3|gs|file)://", re.IGNORECASE)


def readable(overrides: Sequence[str]) -> list[str]:
    """The overrides with the home for `~`.

    Raises ConfigurationError for a URL, and for what Hydra's grammar cannot read, with the same in quotes.
    """
    found = [_HOME.sub(lambda _: str(Path.home()), given) for given in overrides]
    for override in found:
        key, _, value = override.partition("=")
        if _URL.match(override):
            raise ConfigurationError(f"{override} is a URL; files are read from a disk: download it, and name the file")
        if _is_read(override) or value[:1] == "{" or (value[:1] == "[" and value.count("[") != value.count("]")):
            continue  # Hydra says what is wrong with a mapping, and with a list that lacks its end
        if _is_read(quoted := f"{key}={_in_quotes(value)}"):
            typed = shlex.quote(quoted) if re.search(r'["$`\\!]', quoted) else f'"{quoted}"'
            raise ConfigurationError(f"Hydra's grammar cannot read {override}; quote the value: {typed}")
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
