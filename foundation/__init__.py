"""What both daemons and the command line need: the clock, structured logs, backoff. Imports nothing of Wherry."""
