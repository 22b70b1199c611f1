"""The process that answers questions."""
