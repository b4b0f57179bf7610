"""What every room shares: configuration schema, command line, text, disk, host, GPU queries, keyed randomness."""
