"""Several responses to a prompt, drawn as a method plans, beside those to other prompts.

A prompt's plan says which samples to begin; places that its samples leave, or do not need yet, are
used by other prompts. What a plan decides depends on its own samples alone, so answers do not
depend on what else is in the batch.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import GroupGuide, Plan
from rewardsteer.decoding.loop import Batch, Row, entries
from rewardsteer.decoding.requests import Request
from rewardsteer.decoding.sampling import row_generator
from rewardsteer.records import Cost


class _Group:
    """The samples of one prompt."""

    def __init__(
        self, request: Request, prompt_ids: Sequence[int], plan: Plan, config: DecodingConfig
    ) -> None:
        self._name, self._prompt_ids = request.id, prompt_ids
        self._plan, self._seed = plan, config.seed
        self._rows: dict[int, Row] = {}
        self._waiting: deque[int] = deque()
        self._running = 0
        self.answer: Row | None = None
        self._go_on()

    @property
    def waits(self) -> bool:
        """Whether some sample is to begin for which there was no place."""
        return bool(self._waiting)

    def begin(self, free: int) -> list[Row]:
        """Rows that enter now, at most ``free``."""
        if self._plan.together and free < len(self._waiting):
            return []
        samples = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        self._running += len(samples)
        return [self._row(sample) for sample in samples]

    def finish(self, row: Row) -> None:
        """A sample has ended."""
        self._running -= 1
        if self.answer is not None:
            return
        if row.error is not None:
            self._fail(row)
            return
        self._plan.finish(row.sample, row)
        if not self._running and not self._waiting:
            self._go_on()

    def _fail(self, row: Row) -> None:
        """A sample failed, and the prompt with it: the other samples end with their next token."""
        self._waiting.clear()
        for other in self._rows.values():
            other.until = _at_once
        self.answer = row

    def _go_on(self) -> None:
        self._waiting.extend(self._plan.start())
        chosen = None if self._waiting else self._plan.choose()
        if chosen is None:
            return
        self.answer = self._rows[chosen]
        total = sum((row.cost for row in self._rows.values()), Cost())
        self.answer.cost = total.model_copy(update={"new_tokens": len(self.answer.token_ids)})

    def _row(self, sample: int) -> Row:
        """A new row, or one that was dropped and goes on where it was."""
        row = self._rows.get(sample)
        if row is None:
            row = self._rows[sample] = Row(
                self._name, self._prompt_ids, row_generator(self._seed, self._name, sample),
                sample=sample,
            )
        row.dropped, row.watch = False, self._plan.watch(sample)
        return row


def _at_once(token_ids: Sequence[int]) -> bool:
    return True


def run_groups(
    batch: Batch, asked: Sequence[tuple[Request, Sequence[int]]], guide: GroupGuide,
    config: DecodingConfig, text_of: Callable[[Row], str],
) -> Iterator[Row]:
    """The row that answers each prompt, at the cost of all its samples.

    Args:
        batch: empty, with a session of the guide.
        asked: prompts with their token ids.
        guide: plans the samples.
        config: ``batch_size`` and ``seed`` are used here.
        text_of: turns a row into text.

    Yields:
        rows in the order of the prompts; one with an error where a sample failed.
    """
    prompts = iter(asked)
    begun: deque[_Group] = deque()
    owners: dict[int, _Group] = {}

    def enter(free: int) -> list[Row]:
        rows: list[Row] = []
        for group in [one for one in begun if one.waits]:
            rows += _claim(group, group.begin(free - len(rows)), owners)
        while len(rows) < free and not any(group.waits for group in begun):
            prompt = next(prompts, None)
            if prompt is None:
                break
            begun.append(_Group(*prompt, guide.plan(text_of), config))
            rows += _claim(begun[-1], begun[-1].begin(free - len(rows)), owners)
        return rows

    while True:
        entering = enter(entries(batch.busy, config.batch_size))
        if not entering and not batch.busy:
            assert not begun, "a plan that neither draws nor chooses"
            return
        for row in batch.advance(entering):
            owners.pop(id(row)).finish(row)
        while begun and begun[0].answer is not None:
            yield begun.popleft().answer  # type: ignore[misc]


def _claim(group: _Group, rows: list[Row], owners: dict[int, _Group]) -> list[Row]:
    owners.update((id(row), group) for row in rows)
    return rows
