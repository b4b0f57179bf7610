"""The layers of a tower: pure and local; none knows a device, a rank or a process group."""
