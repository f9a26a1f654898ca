"""Pure: a snapshot in, a plan with reasons out. No I/O, no clock, no asyncio. Imports only `manifests`."""
