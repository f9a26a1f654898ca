"""Writes what users desire. Imports the cache and the store; the API calls it."""
