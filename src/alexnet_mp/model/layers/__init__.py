"""The layers of a tower: pure, local, and without any knowledge of where they run."""
