"""What every call goes through, whatever it is about."""
