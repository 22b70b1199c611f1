"""What is stored and shown does not depend on the settings of a role, a database, the environment or a pooler."""
