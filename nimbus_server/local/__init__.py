"""The stack on one machine: PostgreSQL, the workers and Envoy under one supervisor."""
