"""The server: API, watch cache, leader election, reconcilers, node liveness.

Imports `manifests`, `scheduler` and `foundation`.
"""
