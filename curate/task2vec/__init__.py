"""Documents to embeddings: the diagonal of a probe's Fisher information."""
