"""Which waiting rows are decoded next: in order, within places, caches and methods at a time."""

from collections import deque
from collections.abc import Collection, Iterable

from rewardsteer.decoding.loop import entries
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.responses import LaneKey, Sample
from rewardsteer.serving.tickets import Ticket

# After running out of memory, so many steps without trouble let twice as many rows in.
_CALM = 64


class Admission:
    """The rows that wait. The first one is never overtaken, so none waits for ever.

    Args:
        config: places and bounds.
    """

    def __init__(self, config: ServingConfig) -> None:
        self._config = config
        self._waiting: deque[Sample] = deque()
        self._places = config.places
        self._calm = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, samples: Iterable[Sample]) -> None:
        """Rows that come last."""
        self._waiting.extend(samples)

    def put_back(self, samples: Iterable[Sample]) -> None:
        """Rows that had begun and come first, in their order."""
        self._waiting.extendleft(reversed(list(samples)))

    def drop(self, ticket: Ticket) -> None:
        """Forget a request's rows."""
        self._waiting = deque(
            sample for sample in self._waiting if sample.response.ticket is not ticket
        )

    def take(self, working: Collection[Sample]) -> dict[LaneKey, list[Sample]]:
        """Rows that enter now, by lane.

        Args:
            working: rows that are being decoded.
        """
        entering: dict[LaneKey, list[Sample]] = {}
        lanes = {sample.lane for sample in working}
        tokens = sum(sample.longest for sample in working)
        for taken in range(entries(len(working), self._places)):
            if not self._waiting:
                break
            sample = self._waiting[0]
            if working or taken:
                if tokens + sample.longest > self._config.cache_tokens:
                    break
                if len(lanes | {sample.lane}) > self._config.methods_together:
                    break
            self._waiting.popleft()
            tokens += sample.longest
            lanes.add(sample.lane)
            entering.setdefault(sample.lane, []).append(sample)
        return entering

    def too_many(self, rows: int) -> None:
        """So many rows together ran out of memory."""
        self._places, self._calm = max(1, rows // 2), 0

    def went_well(self) -> None:
        """A step without trouble."""
        self._calm += 1
        if self._calm >= _CALM and self._places < self._config.places:
            self._places, self._calm = min(2 * self._places, self._config.places), 0
