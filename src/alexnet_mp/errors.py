"""The exceptions with one-line messages: the user asked for what cannot be, or the machine cannot be trusted."""


class ConfigurationError(ValueError):
    """A mistake in what the user asked for; commands print its message as one line and exit with code 2."""


class LinkError(RuntimeError):
    """What crosses between towers does not arrive as it was sent; commands print one line and exit with code 1."""
