"""The `wherry` command. Starts fast: heavy imports stand inside the commands that need them."""
