"""Check this machine: torchrun launch/check.py, or anywhere torchrun -m alexnet_mp.commands.check."""

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from alexnet_mp.common.cli import run_command
from alexnet_mp.performance.machine_check.run import run_checks


def run(configuration: Mapping[str, Any]) -> None:
    """Carry out the checks; exit with code 1 where one failed."""
    if not run_checks(configuration):
        sys.exit(1)


main = partial(run_command, "check", run)  # what launch/check.py calls

if __name__ == "__main__":
    main()
