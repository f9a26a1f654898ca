"""The HTTP API that the command line, the dashboard and others use, and the agents' sessions."""
