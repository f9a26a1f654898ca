"""What-if: the leader's own passes, made on a fork of the watch cache, with ideal nodes and a clock that jumps."""
