"""Where desired and observed state live: the Store protocol, etcd for clusters, SQLite for one server."""
