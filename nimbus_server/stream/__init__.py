"""Streams of a project's log: replay, then live, from any position."""
