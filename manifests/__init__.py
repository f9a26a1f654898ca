"""The language: models of every kind, quantities, session frames, and YAML loading with lines in errors.

Imports nothing of Wherry."""
