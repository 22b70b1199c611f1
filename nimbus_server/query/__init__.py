"""`nimbus query`: questions from the command line."""
