"""What torchrun says about this process, and the command line that starts the same run again."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet_mp.errors import ConfigurationError


@dataclass(frozen=True)
class Launch:
    """What torchrun says about this process; the defaults are a process started without it.

    `planned` is false for this process itself: what it sees may be bound to it. A launch that is planned sees what this
    process does.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    planned: bool = True

    @property
    def nodes(self) -> int:
        return self.world_size // self.local_world_size

    @classmethod
    def from_environment(cls, rank: int | None = None, world_size: int | None = None) -> "Launch":
        """Read RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, as torchrun sets them; the arguments go first.

        Without the local two, all processes are taken to be on one node.
        """
        rank = _from_environment("RANK", 0) if rank is None else rank
        world_size = _from_environment("WORLD_SIZE", 1) if world_size is None else world_size
        local_rank = _from_environment("LOCAL_RANK", rank)
        return cls(rank, world_size, local_rank, _from_environment("LOCAL_WORLD_SIZE", world_size), planned=False)


def _from_environment(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise ConfigurationError(f"the environment variable {name} is {value!r}, not a number; torchrun sets it")
    return int(value)


def command_line(script: str, launch: Launch, overrides: Sequence[str], but: str) -> str:
    """The command line of `script` (`launch/train.py`) in as many processes, with all overrides of keys but one."""
    torchrun = ["torchrun"]
    if launch.nodes > 1:
        torchrun += [f"--nnodes={launch.nodes}"]
    if launch.world_size > 1:
        torchrun += [f"--nproc-per-node={launch.local_world_size}"]
    if launch.nodes > 1:
        torchrun += ["--rdzv-backend=c10d", "--rdzv-endpoint=FIRST_NODE:29500"]
    kept = [override for override in overrides if not override.lstrip("+").startswith(f"{but}=")]
    return shlex.join([*torchrun, script, *kept])


def own_python_command(script: str) -> str | None:
    """`own_command_line` of a `script` that torchrun does not start, with all that it was told."""
    program, *arguments = sys.argv
    return shlex.join(["python", script, *arguments]) if Path(program).stem == Path(script).stem else None


def own_command_line(script: str, launch: Launch, but: str) -> str | None:
    """The command line of this process; None if something else than `script` or its command started it."""
    program, *overrides = sys.argv
    return command_line(script, launch, overrides, but) if Path(program).stem == Path(script).stem else None
