"""A person watches events go by."""
