"""Several hosts on one machine, for tests: network namespaces on a bridge, with real daemons in them.

Where to start: `network.lab_network` makes hosts, `host.Host` is one of them (run, kill, reboot, pause, partition),
`dockerd.Dockerd` is the engine of a host, `etcd.start_etcd` a store on several, and `cluster.wherry_cluster` is all of
it with Wherry on top. Needs root. May import whatever the tests may; nothing but tests imports it.
"""
