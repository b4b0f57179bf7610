"""Starts every command: Hydra composes the configuration, and a user's mistake ends in one line."""

import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexnet_mp.common.help import asks_for_help, for_example, help_text, overrides_and_flags
from alexnet_mp.common.overrides import quoted_value, readable
from alexnet_mp.common.presets import CONF_PACKAGE, preset_names
from alexnet_mp.common.schema import is_not_one_of, suggestion
from alexnet_mp.common.streams import unfailing_streams
from alexnet_mp.common.text import printable_lines
from alexnet_mp.errors import ConfigurationError, DataLost, LinkError, NotSaved, PeerLost, Stopped

Configuration = Mapping[str, Any]  # composed by Hydra, as plain values
EXIT_CODES: dict[type[Exception], int] = {
    ConfigurationError: 2,
    DataLost: 1,
    FloatingPointError: 1,
    LinkError: 1,
    NotSaved: 1,
    PeerLost: 1,
    Stopped: 75,  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again
}
SECONDS_FOR_RANK_0 = 20
OF_SEVERAL_PROCESSES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # in the environment, by torchrun
# Hydra logs nothing and makes no folder: a run has a log and a folder of its own.
OF_HYDRA = (
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.output_subdir=null",
    "hydra.run.dir=.",
    "hydra.sweep.dir=.",
    "hydra.sweep.subdir=.",
)


def run_command(
    configuration_name: str, function: Callable[[Mapping[str, Any]], object], of_all_processes: bool = False
) -> None:
    """Compose `conf/<configuration_name>.yaml` with the command line's overrides and call `function` with plain values.

    --help is ours, the other flags (--cfg job, --info ...) are Hydra's. Exits with code 2 after one line on standard
    error, under torchrun from rank 0 alone, for what the user can mend: Hydra's errors of composition and
    ConfigurationError.
    The other errors of `EXIT_CODES` end in one line too; one of a lost process from every process that is left, and one
    of lost data from every process that cannot read them. What standard output and error do not take ends nothing.

    Under torchrun, rank 0 carries out a command that is not `of_all_processes`, as one process; the others end at once.
    """
    arguments = sys.argv[1:]
    with unfailing_streams(), _ending_in_one_line():
        if not of_all_processes:
            if os.environ.get("RANK", "0") != "0":
                return
            for name in OF_SEVERAL_PROCESSES:
                os.environ.pop(name, None)
        if asks_for_help(arguments):
            show(help_text(configuration_name))
            return
        overrides, flags = overrides_and_flags(configuration_name, arguments)
        if flags:
            _hand_to_hydra(configuration_name, function, overrides, flags)
        else:
            function(compose(configuration_name, overrides))


@contextmanager
def _ending_in_one_line() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except tuple(EXIT_CODES) as error:
        if isinstance(error, Stopped):
            _tell_torchrun(str(error))
            if os.environ.get("RANK", "0") == "0":
                print(error, file=sys.stderr)
        else:
            _say(str(error), at_once=isinstance(error, (DataLost, PeerLost)))
        sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))
    except OSError as error:
        if not error.filename:
            raise
        # The disk of one node may be at fault alone, so every process says it.
        _say(f"{os.fsdecode(error.filename)}: {error.strerror or error}", at_once=True)
        sys.exit(1)
    except RuntimeError as error:
        if not str(error).startswith("Symlink loop"):  # of Path.resolve, until Python 3.12
            raise
        _say(str(error), at_once=True)
        sys.exit(1)


def show(text: str) -> None:
    """Print lines for a terminal: names in them may come from files and archives of others."""
    print(printable_lines(text), flush=True)


def _say(error: str, at_once: bool) -> None:
    error = printable_lines(error)
    rank = os.environ.get("RANK", "0")
    if rank != "0":
        if _under_torchrun() and not at_once:
            # torchrun stops all processes as soon as one ends, so rank 0 gets the time to say it first. A process that
            # is still there after that is the only one that knows.
            time.sleep(SECONDS_FOR_RANK_0)
        error = f"rank {rank}: {error}"
    print(f"error: {error}", file=sys.stderr)
    _tell_torchrun(error)


def _tell_torchrun(said: str) -> None:
    """Have torchrun show what was said in the box with which it ends, in place of advice about tracebacks."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        extra = {"py_callstack": said, "timestamp": str(int(time.time()))}
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": {"message": said, "extraInfo": extra}}), "utf-8")


def _under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def compose(configuration_name: str, overrides: list[str], presets: Path | None = None) -> Mapping[str, Any]:
    """Compose a configuration as plain values. Raises ConfigurationError for unknown presets and keys.

    `presets` is a folder of presets of the user's own, beside those of `conf/`.
    """
    return _plain(_composed(configuration_name, overrides, presets), configuration_name)


def _composed(configuration_name: str, overrides: list[str], presets: Path | None) -> DictConfig:
    overrides = readable(overrides)
    try:
        return _compose(configuration_name, overrides, presets)
    except HydraException as error:
        raise ConfigurationError(_explain(error, configuration_name, presets)) from error
    except ValueError as error:
        raise ConfigurationError(f"cannot apply {shlex.join(overrides)}: {error}") from error


def own_presets() -> Path | None:
    """The folder that the running command was given by Hydra's --config-dir, absolute; None without it."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    return next((Path(source.path) for source in sources if source.provider == "command-line"), None)


def _compose(configuration_name: str, overrides: list[str], presets: Path | None = None) -> DictConfig:
    own = [] if presets is None else [f"hydra.searchpath=[{quoted_value(f'file://{presets}')}]"]
    with hydra.initialize_config_module(CONF_PACKAGE, version_base="1.3"):
        return hydra.compose(configuration_name, [*overrides, *own])


def _hand_to_hydra(
    configuration_name: str, function: Callable[[Mapping[str, Any]], object], overrides: list[str], flags: list[str]
) -> None:
    decorate = hydra.main(version_base="1.3", config_path=f"pkg://{CONF_PACKAGE}", config_name=configuration_name)
    given = list(sys.argv)
    # argparse takes any beginning of a long option for the whole.
    several = any(a == "-m" or (a.startswith("--m") and "--multirun".startswith(a)) for a in flags)
    if several and _under_torchrun():
        raise ConfigurationError(
            "--multirun inside torchrun: the second job could not connect; start one torchrun per job"
        )
    if not several:  # so that a mistake is explained by us, also before --cfg
        overrides = readable(overrides)
        named = re.search(r"^(?:--config-dir|-cd)[=\n](.*)", "\n".join(flags), re.MULTILINE)
        presets = Path(named[1]).absolute() if named else None
        if presets and not presets.is_dir():
            raise ConfigurationError(f"--config-dir {presets} is no folder")
        _composed(configuration_name, overrides, presets)
    sys.argv = [given[0], *OF_HYDRA, f"hydra.help.app_name='alexnet-mp {configuration_name}'", *overrides, *flags]

    def job(configuration: DictConfig) -> None:
        sys.argv = given
        with _ending_in_one_line():
            GlobalHydra.instance().clear()  # a sweep composes the configurations of its jobs
            function(_plain(configuration, configuration_name))

    decorate(job)()


def _plain(configuration: DictConfig, name: str) -> Mapping[str, Any]:
    missing = sorted(OmegaConf.missing_keys(configuration))
    if missing:
        raise ConfigurationError(f"{', '.join(missing)} must be given{for_example(name, missing[0])}")
    try:
        plain = OmegaConf.to_container(configuration, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(_in_one_line(error)) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _explain(error: HydraException, configuration_name: str, presets: Path | None) -> str:
    """Hydra's message in one line, with the presets or the key that may have been meant."""
    message = _in_one_line(error)
    preset = re.search(r"Could not find '(\w+)/([^']+)'", message)
    if preset:
        group, name = preset.groups()
        own = [] if presets is None else [path.stem for path in (presets / group).glob("*.yaml")]
        presets_known = sorted({*preset_names(group), *own})
        example = f"; for example: {group}={presets_known[0]}" if presets_known else ""
        return is_not_one_of(name, presets_known, group) + example
    key = re.search(r"Could not override '([^']+)'", message)
    if key:
        known = _compose(configuration_name, [])
        near = suggestion(key[1], _keys(known)) or f"; known: {', '.join(map(str, known))}; --cfg job shows all keys"
        return f"unknown key {key[1]!r}{near}"
    return message


def _keys(configuration: DictConfig, above: str = "") -> list[str]:
    """The dotted paths of all keys of a configuration, those without a value too."""
    found = []
    for key in map(str, configuration):
        found.append(above + key)
        if not OmegaConf.is_missing(configuration, key) and isinstance(configuration[key], DictConfig):
            found += _keys(configuration[key], f"{above}{key}.")
    return found


def _in_one_line(error: Exception) -> str:
    """A message without Hydra's list of search paths, its advice, and OmegaConf's `full_key` lines."""
    return " ".join(re.split("Config search path:|full_key:|You can|To append", str(error))[0].split())
