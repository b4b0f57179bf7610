"""The network as modules: layers, stages between crossings, towers, and the same network on a single device."""
