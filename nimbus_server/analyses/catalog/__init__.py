"""What there is to ask about: event names, properties, and their values."""
