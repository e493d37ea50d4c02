"""Order and budget to training data."""
