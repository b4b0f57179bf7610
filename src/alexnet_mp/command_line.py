"""The command line that starts the same again: on any machine, from a checkout, into a new folder."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from alexnet_mp.placement import Launch


def command_line(script: str, launch: Launch, overrides: Sequence[str], but: str) -> str:
    """The command line of `script` (`launch/train.py`) in as many processes, with all overrides of keys but one."""
    nodes = launch.world_size // launch.local_world_size
    torchrun = ["torchrun"]
    if nodes > 1:
        torchrun += [f"--nnodes={nodes}"]
    if launch.world_size > 1:
        torchrun += [f"--nproc-per-node={launch.local_world_size}"]
    if nodes > 1:
        torchrun += ["--rdzv-backend=c10d", "--rdzv-endpoint=FIRST_NODE:29500"]
    kept = [override for override in overrides if not override.lstrip("+").startswith(f"{but}=")]
    return shlex.join([*torchrun, script, *kept])


def own_python_command(script: str) -> str | None:
    """`own_command_line` of a `script` that torchrun does not start, with all that it was told."""
    program, *arguments = sys.argv
    return shlex.join(["python", script, *arguments]) if Path(program).stem == Path(script).stem else None


def own_command_line(script: str, launch: Launch, but: str) -> str | None:
    """The command line of this process; None where something else than `script` or its command started it."""
    program, *overrides = sys.argv
    return command_line(script, launch, overrides, but) if Path(program).stem == Path(script).stem else None
