"""Makes a pack of published pictures: lists a source, decodes it in parallel, writes shards and statistics."""
