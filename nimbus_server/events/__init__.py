"""The log over gRPC, and reading it back."""
