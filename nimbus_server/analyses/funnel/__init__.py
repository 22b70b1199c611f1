"""QueryFunnel: how far people get through steps, how long it takes them, and where they leave."""
