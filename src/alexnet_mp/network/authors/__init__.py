"""Networks of the authors' code, from its own files."""
