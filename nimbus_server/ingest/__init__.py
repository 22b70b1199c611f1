"""The way in: decode, validate, identify, append."""
