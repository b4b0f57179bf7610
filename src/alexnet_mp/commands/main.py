"""The command `alexnet-mp`: `alexnet-mp describe network=paper` is `python launch/describe.py network=paper`."""

import importlib
import sys

from alexnet_mp.common.cli import show
from alexnet_mp.common.help import first_line
from alexnet_mp.common.schema import is_not_one_of
from alexnet_mp.common.text import take_every_character

_NAMED = ["train", "evaluate", "classify", "prepare", "describe", "convert", "report", "plot", "results", "sweep"]
_NAMED += ["plan", "check"]
COMMANDS = {name: (name, f"alexnet_mp.commands.{name}") for name in _NAMED}  # its configuration, and its module
COMMANDS["benchmark"] = ("benchmark/split_vs_single", "alexnet_mp.performance.benchmark.split_vs_single")


def main() -> None:
    """Run the command that the first argument names, with the others; without any, or with --help, list them all.

    Ends with code 2, after one line on standard error, for a command that there is not.
    """
    take_every_character()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        lines = [f"  {each:<10} {first_line(configuration)}" for each, (configuration, _) in COMMANDS.items()]
        usage = "alexnet-mp COMMAND KEY=VALUE ...; alexnet-mp COMMAND --help explains the keys"
        several = "With several processes: torchrun --nproc-per-node=2 -m alexnet_mp.commands.train KEY=VALUE ..."
        show("\n".join([usage, "", *lines, "", several]))
    elif name not in COMMANDS:
        example = "; for example: alexnet-mp describe network=paper"
        print(f"error: {is_not_one_of(name, COMMANDS, 'the command')}{example}", file=sys.stderr)
        sys.exit(2)
    else:
        command = importlib.import_module(COMMANDS[name][1])
        sys.argv = [str(command.__file__), *arguments]  # as with python -m, for a run notes how it was started
        command.main()


if __name__ == "__main__":
    main()
