"""What the command line offers: one file a command, each a typed function (``cli.COMMANDS``)."""
