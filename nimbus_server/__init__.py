"""Nimbus: event analytics that a team runs itself. README.md says in which folder what happens."""
