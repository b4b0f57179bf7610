"""The kinds of row that a network table may have. Counts of kernels and units are per tower."""

from typing import Literal

# Whatever kind is added to one of these files is one of `rows` at once.
from alexnet_mp.network.rows.base import *  # noqa: F403
from alexnet_mp.network.rows.compound import *  # noqa: F403
from alexnet_mp.network.rows.plain import *  # noqa: F403
from alexnet_mp.network.rows.weighted import *  # noqa: F403

Convention = Literal["authors", "inverted"]  # of dropout: who scales, evaluation or training
