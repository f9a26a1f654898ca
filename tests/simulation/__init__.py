"""The deterministic simulator: the real code of a whole cluster on one seeded event loop, with virtual time.

`loop` runs processes; `etcd`, `runtime`, `network` and `hosts` are the world around them; `cluster` puts real servers
and agents into it; `faults` and `users` say what happens to it; `history` runs one seed and judges it; `campaign` runs
many.
"""
