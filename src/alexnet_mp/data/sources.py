"""Where images come from: a name in the configuration becomes a data set that fits the network."""

from alexnet_mp.data.digits import digits
from alexnet_mp.data.images import DataSet
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.strict import choice

SOURCES = {"digits": digits}


def load_data(source: str, image: tuple[int, int, int], classes: int) -> DataSet:
    """The data set `source` at the network's image size (channels, height, width).

    Raises ConfigurationError for an unknown source, and where the network has another number of classes.
    """
    data = SOURCES[choice(source, SOURCES, "data.source")](image)
    if len(data.class_names) != classes:
        raise ConfigurationError(
            f"the network has {classes} classes and {data.name} has {len(data.class_names)}; "
            f"use network.classes={len(data.class_names)}"
        )
    return data
