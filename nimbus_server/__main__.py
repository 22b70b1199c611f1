"""`python -m nimbus_server` is the `nimbus` command."""

from nimbus_server.cli import main

main()
