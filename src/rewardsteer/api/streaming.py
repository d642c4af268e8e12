"""The text of one response in pieces, while another thread generates it."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

from rewardsteer.records import Generation

if TYPE_CHECKING:
    from rewardsteer.decoding.answer import Watch


def pieces(run: "Callable[[Watch], Generator[Generation, None, None]]") -> Iterator[str]:
    """Pieces of the text of one response. Where the caller reads no further, generation stops.

    Args:
        run: generates the response, and lets the function that it gets watch the sample.

    Raises:
        RewardsteerError: the prompt cannot be answered.
    """
    from rewardsteer.decoding.generate import require_answers

    told: queue.Queue[str | BaseException | None] = queue.Queue()
    left = threading.Event()

    def tell(text: str) -> None:
        if left.is_set():
            raise InterruptedError("nobody listens any more")
        told.put(text)

    def work() -> None:
        try:
            list(require_answers(run(lambda sample: sample.listen(tell))))
            told.put(None)
        except BaseException as error:
            told.put(error)

    thread = threading.Thread(target=work, name="streaming", daemon=True)
    thread.start()
    try:
        while (piece := told.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        left.set()
        thread.join()
