"""Embeddings to order: alignment with its noise and interval."""
