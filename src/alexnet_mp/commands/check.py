"""Check this machine: torchrun launch/check.py, or anywhere torchrun -m alexnet_mp.commands.check."""

import sys
from functools import partial

from alexnet_mp.common.cli import Configuration, run_command
from alexnet_mp.performance.machine_check.run import run_checks


def run(configuration: Configuration) -> None:
    """Carry out the checks; exit with code 1 if one failed."""
    if not run_checks(configuration):
        sys.exit(1)


main = partial(run_command, "check", run, of_all_processes=True)  # what launch/check.py calls

if __name__ == "__main__":
    main()
