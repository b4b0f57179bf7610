"""The line of a failed job's log that says why."""

import re
from pathlib import Path

from alexnet_mp.common.text import printable

_LONGEST = 300
_LOG_BYTES = 1 << 20  # of the end of a log are read

_RANK = re.compile(r"^\[rank\d+\]: ?")  # torch puts it before a traceback's lines
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Failed)\b")
_TORCHRUN = ("ChildFailedError", "SignalException", "torch.distributed.elastic.")


def last_error(log: Path, start: int) -> str:
    """In one line, why the attempt failed whose output begins at byte `start` of `log`.

    That is the last line that begins with `error: `, as every command ends; or else the last exception that is not
    torchrun's own; or else the last line at all.
    """
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(start, end - _LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"nothing is known of it: cannot read its log ({error})"
    lines = [_RANK.sub("", line).rstrip() for line in text.splitlines()]
    said = [line for line in lines if line.startswith("error: ")]
    raised = [line for line in lines if _EXCEPTION.match(line) and not any(word in line for word in _TORCHRUN)]
    words = [line for line in lines if line.strip("=- ")]
    found = (said or raised or words or ["it printed nothing"])[-1].removeprefix("error: ").strip()
    return printable(found if len(found) <= _LONGEST else f"{found[: _LONGEST - 1]}…")
