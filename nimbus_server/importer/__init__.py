"""History from files, into the log of a project."""
