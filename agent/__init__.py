"""The agent of a node: session, reconcile, drivers, health. Imports `manifests`, `wherry.client`, `foundation`."""
