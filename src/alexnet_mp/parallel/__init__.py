"""Towers on devices and processes: crossings and the links that carry them, placement, mesh, rendezvous."""
