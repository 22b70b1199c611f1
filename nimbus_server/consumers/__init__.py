"""Readers of the log whose position the server keeps."""
