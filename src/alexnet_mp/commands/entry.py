"""How every command starts: Hydra composes the configuration, and a user's mistake ends in one line."""

import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.presets import CONF_PACKAGE

USER_ERROR = 2


def run_command(configuration_name: str, function: Callable[[Mapping[str, Any]], object]) -> None:
    """Compose `conf/<configuration_name>.yaml` with the command line's overrides and call `function` with plain values.

    Hydra's own flags (--help, --cfg job, --info ...) are Hydra's. Exits with code 2 after one line on standard error,
    from rank 0 alone, for what the user can mend: Hydra's errors of composition and ConfigurationError.
    """
    arguments = sys.argv[1:]
    try:
        _refuse_multirun(arguments)
        if any(argument.startswith("-") for argument in arguments):
            _hand_to_hydra(configuration_name, function)
        else:
            function(compose(configuration_name, arguments))
    except ConfigurationError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)


def compose(configuration_name: str, overrides: list[str]) -> Mapping[str, Any]:
    """Compose a configuration as plain values. Raises ConfigurationError for unknown presets and keys."""
    try:
        with hydra.initialize_config_module(CONF_PACKAGE, version_base="1.3"):
            composed = hydra.compose(configuration_name, overrides)
    except HydraException as error:
        raise ConfigurationError(_in_one_line(error)) from error
    return _plain(composed)


def _hand_to_hydra(configuration_name: str, function: Callable[[Mapping[str, Any]], object]) -> None:
    decorate = hydra.main(version_base="1.3", config_path=f"pkg://{CONF_PACKAGE}", config_name=configuration_name)
    decorate(lambda configuration: function(_plain(configuration)))()


def _refuse_multirun(arguments: list[str]) -> None:
    if any(argument in ("-m", "--multirun") for argument in arguments) and "TORCHELASTIC_RUN_ID" in os.environ:
        raise ConfigurationError(
            "--multirun inside torchrun: the second job could not connect; start one torchrun per job"
        )


def _plain(configuration: DictConfig) -> Mapping[str, Any]:
    try:
        plain = OmegaConf.to_container(configuration, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(_in_one_line(error)) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _in_one_line(error: Exception) -> str:
    """Hydra's message without its list of search paths and without OmegaConf's `full_key` lines."""
    message = re.split("Config search path:|full_key:|To append to your config", str(error))[0]
    unknown = " No such key; --cfg job shows all." if message.startswith("Could not override") else ""
    return " ".join(message.split()) + unknown
