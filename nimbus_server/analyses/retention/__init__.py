"""Retention: who comes back, of QueryRetention."""
