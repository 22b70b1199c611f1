from nimbus_server.cli import app

app()
