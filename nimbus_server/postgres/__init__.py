"""The pool, migrations and partitions."""
