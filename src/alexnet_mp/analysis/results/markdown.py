"""Text from run folders as Markdown: a page shows it, and no name in it becomes a link, a picture or markup."""

import re
from collections.abc import Sequence

from alexnet_mp.common.text import printable


def text(words: str) -> str:
    """Words in a paragraph, a list or a heading."""
    # A link and a picture need `](` or `][`, and everything of HTML needs `<`.
    return re.sub(r"\](?=[(\[])", r"]\\", printable(words)).replace("<", "&lt;")


def code(words: str) -> str:
    """Words in a code span, which ends at the first backtick."""
    return f"`{printable(words).replace('`', chr(39))}`"


def block(lines: Sequence[str]) -> str:
    """Lines of code, with a fence that is longer than any in them."""
    shown = [printable(line) for line in lines]
    longest = max((len(run) for line in shown for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([fence, *shown, fence])
