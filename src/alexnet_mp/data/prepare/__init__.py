"""From pictures as they are published to a pack: list a source, decode it in parallel, write shards and statistics."""
