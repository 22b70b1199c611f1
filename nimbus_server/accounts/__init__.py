"""People, their sessions, API keys and signatures: who makes a call."""
