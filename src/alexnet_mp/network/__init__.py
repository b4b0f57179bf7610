"""The network table: what a network is, and what it costs, before anything is allocated."""
