"""Models from disk."""
