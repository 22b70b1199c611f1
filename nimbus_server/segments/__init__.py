"""The log as Parquet files: export, compaction, erasure and clean-up, and the manifest that says which files count."""
