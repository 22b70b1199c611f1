"""Load on a running Nimbus, to know what a machine can do."""
