"""What a user touches: the `wherry` command (wherry.cli) and the async client library (wherry.client)."""
