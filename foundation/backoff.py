"""How long to wait before the next try: doubling, capped, and jittered where many would try at once."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays of `first_s`, then twice as long each time, never above `most_s`."""

    first_s: float
    most_s: float

    def delay_s(self, failures: int, rng: random.Random | None = None) -> float:
        """Return the delay after that many failures in a row, from 1 on; `rng` spreads it over [half, whole].

        >>> [Backoff(1, 5).delay_s(n) for n in (1, 2, 3, 4, 1000)]
        [1.0, 2.0, 4.0, 5.0, 5.0]
        """
        delay = min(self.most_s, self.first_s * 2.0 ** min(max(failures, 1) - 1, 60))
        return float(delay if rng is None else delay * rng.uniform(0.5, 1.0))
