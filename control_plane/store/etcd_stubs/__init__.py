"""Generated messages of etcd's protocol (script/generate-stubs). Only the etcd modules of the store import them."""
