"""Documents in: any file becomes documents, shards, targets and token blocks."""
