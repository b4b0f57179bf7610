"""The commands: each composes its configuration with Hydra and calls into the library."""
