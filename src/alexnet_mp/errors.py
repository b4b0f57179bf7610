"""The one exception that means: the user asked for something that cannot be, and the message says what to do."""


class ConfigurationError(ValueError):
    """A mistake in what the user asked for; commands print its message as one line and exit with code 2."""
