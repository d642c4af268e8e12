"""The contrastive objective against loops written from its equations, and what it draws."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.distributed import excluded_from_reductions, global_mean
from rewardsteer.errors import ConfigError
from rewardsteer.objectives.combine import build_objective
from rewardsteer.objectives.contrastive import GoalContrastiveConfig
from rewardsteer.objectives.contrastive_published import published_columns
from rewardsteer.objectives.goal_contrastive import _draws, goal_contrastive
from rewardsteer.objectives.positions import (
    PerRowGenerator,
    Spans,
    draw,
    draw_future,
    response_spans,
)
from rewardsteer.training.config import TermConfig
from tests.fakes import fixed_output
from tests.processes import in_two_processes

WIDTH = 5  # hidden size
WINDOWS = [(0.0, 1.0), (0.0, 0.5), (0.5, 1.0)]
SIDES = ["right", "left"]
STRATEGIES = ["cosine", "cosine_avg"]


def row(number, prompt, chosen, rejected):
    return {
        "id": f"r{number}", "prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected,
    }


def random_rows(seed, count=4):
    """Rows of a small alphabet, so that many pairs begin alike and some are prefixes."""
    generator = torch.Generator().manual_seed(seed)

    def ids(low, high, kinds=9):
        length = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(3, 3 + kinds, (length,), generator=generator).tolist()

    made = []
    for number in range(count):
        common = ids(0, 3)
        made.append(row(number, ids(1, 6), common + ids(1, 9, 2), common + ids(1, 9, 2)))
    return made


# One token; rejected a prefix of chosen (nothing left to push from); chosen a prefix of rejected;
# both the same one token; a common beginning; a prompt of one token.
EDGES = [
    row("a", [3, 4, 5], [6], [7, 8, 9]),
    row("b", [3, 4], [5, 6, 7, 8], [5, 6]),
    row("c", [9, 9], [5, 6], [5, 6, 7, 8, 9]),
    row("d", [8, 8], [5], [5]),
    row("e", [3] * 6, [5, 6, 7, 8, 9, 10, 11], [5, 6, 9, 9]),
    row("f", [4], [5, 6, 7], [8, 6, 7]),
]


def collate(data, side):
    return to_batch(PairCollator(2, side)(data))


def random_states(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch.input_ids.shape, WIDTH, generator=generator, dtype=torch.float64)


def output_of(hidden):
    return fixed_output(hidden[:, -1, 0], hidden)


def options_of(**options):
    return GoalContrastiveConfig.model_validate(
        {"form": "future", "positives": 5, "negatives": 4} | options
    )


# --- plain computations ----------------------------------------------------------------------


def plain_spans(data, side, width, key, window):
    """(begin, end) columns of the part of each response that may be drawn, from the lists alone."""
    spans = []
    for item in data:
        mine, chosen, rejected = item[key], item["chosen_ids"], item["rejected_ids"]
        common = 0
        while common < min(len(chosen), len(rejected)) and chosen[common] == rejected[common]:
            common += 1
        prompt = len(item["prompt_ids"])
        start = prompt if side == "right" else width - len(mine)
        length = len(mine) - common
        first = min(math.floor(window[0] * length), max(length - 1, 0))
        last = min(max(math.ceil(window[1] * length), first + 1), length)
        spans.append((start + common + first, start + common + last))
    return spans


def as_spans(pairs):
    begin, end = torch.tensor(pairs).T
    return Spans(begin, end)


def cos(first, second):
    return (first * second).sum() / ((first * first).sum() * (second * second).sum()).sqrt()


def minus_log_sigmoid(value):
    return torch.log(1 + torch.exp(-value))


def mean(values):
    return sum(values) / len(values) if len(values) else torch.zeros((), dtype=torch.float64)


def goal_states(hidden, columns, options):
    """The goal states of a row: one a column, or their mean for every source."""
    states = [hidden[int(column)] for column in columns]
    return [mean(states)] * len(states) if options.strategy == "cosine_avg" else states


def plain(form, hidden, batch, data, side, options):
    """Loss with loops over rows and pairs, and the positive and negative cosines, row by row."""
    width, count = batch.input_ids.shape[1], len(data)
    draws = _draws(batch, options.seed)
    if form == "published":
        return plain_published(hidden, batch, options, draws)
    sources = plain_spans(data, side, width, "chosen_ids", options.source_window)
    goals = plain_spans(data, side, width, "chosen_ids", options.goal_window)
    theirs = plain_spans(data, side, width, "rejected_ids", options.goal_window)
    source, goal, _ = draw_future(
        as_spans(sources), as_spans(goals), options.positives, draws,
        shared_split=options.strategy == "cosine_avg",
    )
    usable = [  # rows that have a source with a later goal
        i for i in range(count)
        if any(g > s for s in range(*sources[i]) for g in range(*goals[i]))
    ]
    near = {i: cosines(hidden, i, source[i], i, goal[i], options) for i in usable}
    if form == "infonce":
        against = draw(*as_spans(theirs), options.negatives, draws)
        return plain_infonce(hidden, source, near, theirs, against, options)
    again = draw(*as_spans(sources), options.negatives, draws)
    against = draw(*as_spans(theirs), options.negatives, draws)
    far = {
        i: cosines(hidden, i, again[i], count + i, against[i], options) for i in range(count)
        if sources[i][0] < sources[i][1] and theirs[i][0] < theirs[i][1]
    }
    loss = torch.zeros((), dtype=torch.float64)
    for rows, sign in ((near, 1), (far, -1)):
        loss = loss + mean([
            mean([minus_log_sigmoid(sign * c / options.temperature) for c in own])
            for own in rows.values()
        ])
    return loss, list(near.values()), list(far.values())


def cosines(hidden, row, sources, other, goals, options):
    """The j-th source of a row against the j-th goal state of another."""
    states = goal_states(hidden[other], goals, options)
    return [cos(hidden[row, int(s)], g) for s, g in zip(sources, states, strict=True)]


def plain_infonce(hidden, source, near, theirs, against, options):
    """Every positive pair against the rejected states of all rows."""
    pool = []
    for i, (begin, end) in enumerate(theirs):
        if begin < end:
            states = goal_states(hidden[len(theirs) + i], against[i], options)
            pool += states[:1] if options.strategy == "cosine_avg" else states
    terms, far = [], []
    for i, own in near.items():
        losses = []
        for s, c in zip(source[i], own, strict=True):
            others = [cos(hidden[i, int(s)], state) for state in pool]
            top = torch.exp(c / options.temperature)
            rest = sum(torch.exp(other / options.temperature) for other in others)
            losses.append(-torch.log(top / (top + rest)))
            far.append(others)
        terms.append(mean(losses))
    return mean(terms), list(near.values()), far if pool else []


def plain_published(hidden, batch, options, draws):
    """A transcription of the published formula on unpadded rows, indices counted from the end."""
    count = len(hidden) // 2
    rows = [hidden[i][batch.attention_mask[i].bool()] for i in range(2 * count)]
    answer = batch.response_mask.sum(1).tolist()

    def states(u, percentile, row):
        taken = []
        for value in u.tolist():
            f = (percentile - 1) * value + 1
            k = math.floor(f * answer[row] + 1)
            taken.append(rows[row][-min(k, len(rows[row]) - 1)])
        return taken

    u = draws.uniform(2, options.positives).sort(dim=1).values
    v, w = draws.uniform(options.negatives), draws.uniform(options.negatives)

    def all_pairs(pick_sources, pick_goals):
        rows = []
        for i in range(count):
            goals = pick_goals(i)
            if options.strategy == "cosine_avg":
                goals = [mean(goals)]
            rows.append([cos(s, g) for s in pick_sources(i) for g in goals])
        return rows

    positive = all_pairs(
        lambda i: states(u[i, 0], options.source_percentile, i),
        lambda i: states(u[i, 1], options.goal_percentile, i),
    )
    negative = all_pairs(
        lambda i: states(v[i], options.source_percentile, i),
        lambda i: states(w[i], options.goal_percentile, count + i),
    )
    p, n = (
        mean([1 / (1 + torch.exp(-c)) for own in side for c in own])
        for side in (positive, negative)
    )
    return -torch.log(p) - torch.log(1 - n), positive, negative


def flat_mean(rows):
    return mean([c for own in rows for c in own]).item()


def assert_same(data, side, options, seed=0):
    batch = collate(data, side)
    ours = random_states(batch, seed).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    result = goal_contrastive(output_of(ours), batch, options)
    loss, positive, negative = plain(options.form, theirs, batch, data, side, options)
    torch.testing.assert_close(result.loss, loss, atol=1e-10, rtol=1e-10)
    result.loss.backward()
    if loss.requires_grad:
        loss.backward()
    expected = theirs.grad if theirs.grad is not None else torch.zeros_like(theirs)
    torch.testing.assert_close(ours.grad, expected, atol=1e-10, rtol=1e-10)
    for name, rows in (("goal_positive", positive), ("goal_negative", negative)):
        expected = flat_mean(rows) if rows else 0.0
        assert result.metrics[name].item() == pytest.approx(expected, abs=1e-10)
    return result.loss.item()


# --- loss and gradients ----------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("form", ["future", "infonce"])
@pytest.mark.parametrize("windows", [
    (WINDOWS[0], WINDOWS[0]), (WINDOWS[1], WINDOWS[2]), (WINDOWS[2], WINDOWS[0]),
    (WINDOWS[2], (0.0, 0.75)), (WINDOWS[1], WINDOWS[1]),
])
def test_future_and_infonce_equal_the_loops(form, strategy, side, windows):
    options = options_of(
        form=form, strategy=strategy, temperature=0.3, source_window=windows[0],
        goal_window=windows[1],
    )
    losses = [assert_same(random_rows(seed), side, options, seed) for seed in range(3)]
    losses.append(assert_same(EDGES, side, options))
    assert any(losses)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("percentiles", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1, 1), (0.3, 0.7)])
def test_published_equals_its_transcription(strategy, side, percentiles):
    options = options_of(
        form="published", strategy=strategy, source_percentile=percentiles[0],
        goal_percentile=percentiles[1],
    )
    for seed in range(3):
        assert_same(random_rows(seed), side, options, seed)
    assert_same(EDGES, side, options)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000), form=st.sampled_from(["future", "infonce", "published"]),
    strategy=st.sampled_from(STRATEGIES), side=st.sampled_from(SIDES),
    counts=st.tuples(st.integers(1, 12), st.integers(1, 12)), draws=st.integers(0, 5),
)
def test_random_spans_equal_the_loops(seed, form, strategy, side, counts, draws):
    options = options_of(
        form=form, strategy=strategy, positives=counts[0], negatives=counts[1], seed=draws
    )
    assert_same(random_rows(seed, 3), side, options, seed)


def test_default_temperature_and_one_pair_by_hand():
    # Two response tokens a side: the only source is the first, the only later goal the second.
    batch = collate([row(0, [3], [4, 5], [6])], "right")
    hidden = torch.zeros(2, 3, 2, dtype=torch.float64)
    hidden[0, 1], hidden[0, 2] = torch.tensor([2.0, 0.0]), torch.tensor([3.0, 4.0])
    hidden[1, 1] = torch.tensor([0.0, 1.0])
    near, far_first, far_second = 0.6, 0.0, 0.8

    def ln(value):
        return math.log(1 + math.exp(-value))

    options = options_of(positives=3, negatives=1, source_window=(0, 0.5))
    loss = goal_contrastive(output_of(hidden), batch, options).loss.item()
    assert loss == pytest.approx(ln(near / 0.1) + ln(-far_first / 0.1), abs=1e-12)
    options = options_of(form="infonce", negatives=2)
    loss = goal_contrastive(output_of(hidden), batch, options).loss.item()
    expected = -math.log(math.exp(6) / (math.exp(6) + 2 * math.exp(far_first / 0.1)))
    assert loss == pytest.approx(expected, abs=1e-12)
    options = options_of(negatives=1, source_window=(0.5, 1))  # no goal after the last token
    loss = goal_contrastive(output_of(hidden), batch, options).loss.item()
    assert loss == pytest.approx(ln(-far_second / 0.1), abs=1e-12)


@pytest.mark.parametrize("form", ["future", "infonce"])
def test_batch_without_any_pair_gives_zero_with_a_gradient_path(form):
    batch = collate([row(0, [3, 4], [5], [5]), row(1, [3], [6], [6])], "left")
    hidden = random_states(batch).requires_grad_()
    result = goal_contrastive(output_of(hidden), batch, options_of(form=form))
    result.loss.backward()
    assert result.loss.item() == 0.0
    assert not hidden.grad.any()
    assert [value.item() for value in result.metrics.values()] == [0.0, 0.0]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("form", ["future", "infonce"])
def test_rejected_beginnings_of_the_chosen_push_nothing_away(form, side):
    data = [EDGES[1]]  # the rejected response has no token of its own
    loss = assert_same(data, side, options_of(form=form))
    assert (loss == 0) == (form == "infonce")


@pytest.mark.parametrize("form", ["future", "infonce", "published"])
def test_half_precision_states_are_compared_in_float32(form):
    data = random_rows(5)
    batch = collate(data, "right")
    hidden = random_states(batch).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = goal_contrastive(output_of(hidden), batch, options_of(form=form))
    exact = goal_contrastive(output_of(hidden.double()), batch, options_of(form=form))
    assert result.loss.dtype == torch.float32
    assert result.loss.item() == pytest.approx(exact.loss.item(), abs=1e-5)


def test_published_loss_stays_between_its_bounds():
    low = -2 * math.log(1 / (1 + math.exp(-1)))
    high = -2 * math.log(1 / (1 + math.exp(1)))
    batch = collate(EDGES, "right")
    options = options_of(form="published")
    for seed in range(20):
        loss = goal_contrastive(output_of(random_states(batch, seed)), batch, options).loss.item()
        assert low < loss < high
    best = torch.ones_like(random_states(batch))
    best[len(EDGES):] = -1
    assert goal_contrastive(output_of(best), batch, options).loss.item() == pytest.approx(low)
    # The worst: every goal, chosen or rejected, against every source as the loss dislikes it.
    # One prompt token, one response token; percentile 1 takes the token before the response.
    batch = collate([row(0, [3, 3], [4], [5])], "right")
    worst = torch.ones_like(random_states(batch))
    worst[0, 2] = -1  # the chosen response's token; goals of the rejected one stay at 1
    options = options_of(form="published", source_percentile=1.0, goal_percentile=0.0)
    found = goal_contrastive(output_of(worst), batch, options).loss.item()
    assert found == pytest.approx(high)


# --- what is drawn ---------------------------------------------------------------------------


def drawn(data, side, strategy="cosine", seed=0, source_window=(0, 1), goal_window=(0, 1)):
    """Columns as the objective draws them, for rows that have any."""
    batch = collate(data, side)
    draws = _draws(batch, seed)
    chosen, rejected = response_spans(batch)
    sources, goals = chosen.window(*source_window), rejected.window(*goal_window)
    source, goal, valid = draw_future(
        sources, chosen.window(*goal_window), 8, draws,
        shared_split=strategy == "cosine_avg",
    )
    again = draw(sources.begin, sources.end, 8, draws)
    against = draw(goals.begin, goals.end, 8, draws)
    return batch, source, goal, valid, again, against


def spans_of(data, side, batch, key, window=(0, 1)):
    return plain_spans(data, side, batch.input_ids.shape[1], key, window)


windows = st.tuples(st.integers(0, 9), st.integers(1, 10)).filter(lambda w: w[0] < w[1]).map(
    lambda w: (w[0] / 10, w[1] / 10)
)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), side=st.sampled_from(SIDES), strategy=st.sampled_from(STRATEGIES),
    source_window=windows, goal_window=windows,
)
def test_draws_stay_within_mask_windows_and_order(
    seed, side, strategy, source_window, goal_window
):
    data = random_rows(seed) + EDGES
    batch, source, goal, valid, again, against = drawn(
        data, side, strategy, seed, source_window, goal_window
    )
    count = len(data)
    sources = spans_of(data, side, batch, "chosen_ids", source_window)
    goals = spans_of(data, side, batch, "chosen_ids", goal_window)
    theirs = spans_of(data, side, batch, "rejected_ids", goal_window)
    assert source.shape == goal.shape == (count, 8)
    for i in range(count):
        possible = any(g > s for s in range(*sources[i]) for g in range(*goals[i]))
        assert bool(valid[i]) == possible
        checks = [(again[i], i, sources[i]), (against[i], count + i, theirs[i])]
        if possible:
            checks += [(source[i], i, sources[i]), (goal[i], i, goals[i])]
            assert (goal[i] > source[i]).all()
            if strategy == "cosine_avg":
                assert goal[i].min() > source[i].max()
        for columns, place, (begin, end) in checks:
            if begin < end:
                assert batch.response_mask[place, columns].all()
                assert ((columns >= begin) & (columns < end)).all()


def test_common_beginning_is_left_out():
    batch = collate(EDGES, "right")
    chosen, rejected = response_spans(batch)
    assert chosen.lengths.tolist() == [1, 2, 0, 0, 5, 3]
    assert rejected.lengths.tolist() == [3, 0, 3, 0, 2, 3]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_column_that_may_be_drawn_is(strategy):
    data = [row(0, [3], [4, 5, 6, 7, 8], [9, 9, 9])]
    batch = collate(data, "right")
    chosen, _ = response_spans(batch)
    draws = PerRowGenerator([0])
    seen = set()
    for _ in range(200):
        source, goal, _ = draw_future(
            chosen, chosen, 4, draws, shared_split=strategy == "cosine_avg"
        )
        seen |= set(zip(source.flatten().tolist(), goal.flatten().tolist(), strict=True))
    assert seen == {(s, g) for s in range(1, 5) for g in range(s + 1, 6)}


def test_draws_are_uniform():
    draws = PerRowGenerator([0])
    columns = draw(torch.tensor([2]), torch.tensor([6]), 40_000, draws)
    shares = torch.bincount(columns[0], minlength=7) / 40_000
    assert shares[[0, 1, 6]].sum() == 0
    torch.testing.assert_close(shares[2:6], torch.full((4,), 0.25), atol=0.01, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000), strategy=st.sampled_from(STRATEGIES),
    form=st.sampled_from(["future", "infonce", "published"]),
)
def test_left_and_right_padding_draw_the_same_tokens(seed, strategy, form):
    data = random_rows(seed) + EDGES
    right, left = (drawn(data, side, strategy, seed) for side in SIDES)
    starts = [batch.attention_mask.argmax(1) for batch in (right[0], left[0])]
    count = len(data)
    valid = right[3]
    assert torch.equal(valid, left[3])
    for index, rows in ((1, slice(0, count)), (2, slice(0, count))):
        ours = (right[index] - starts[0][rows, None])[valid]
        theirs = (left[index] - starts[1][rows, None])[valid]
        assert torch.equal(ours, theirs)
    options = options_of(form=form, strategy=strategy)
    # The states of a token, not of a column: the loss is the same too.
    states = torch.randn(
        2 * count, 40, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    losses = []
    for batch in (right[0], left[0]):
        place = (batch.attention_mask.cumsum(1) - 1).clamp(min=0)
        hidden = states.gather(1, place[..., None].expand(-1, -1, WIDTH))
        losses.append(goal_contrastive(output_of(hidden), batch, options).loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


def test_published_columns_count_from_the_end():
    data = random_rows(3) + EDGES
    options = options_of(form="published", positives=30, negatives=30)
    for side in SIDES:
        batch = collate(data, side)
        columns = published_columns(batch, options, _draws(batch, 0))
        count = len(data)
        for place, (taken, rows) in enumerate(zip(
            columns, [slice(count), slice(count), slice(count), slice(count, None)], strict=True
        )):
            assert batch.response_mask[rows].gather(1, taken).all(), place
        assert (columns[0] <= columns[1]).all()  # equal ones are allowed here


def test_published_percentile_leaves_the_end_out():
    data = [row(0, [3, 3, 3], list(range(4, 14)), list(range(20, 30)))]
    batch = collate(data, "left")
    options = options_of(
        form="published", positives=400, negatives=400, source_percentile=0.5, goal_percentile=1.0
    )
    source, goal, again, against = published_columns(batch, options, _draws(batch, 0))
    # Columns 3..12 are the response. f in (0.5, 1], k from 6 to 10 from the end.
    assert set(source.flatten().tolist()) == set(again.flatten().tolist()) == {3, 4, 5, 6, 7}
    assert set(goal.flatten().tolist()) == set(against.flatten().tolist()) == {2}


@pytest.mark.parametrize("form", ["future", "infonce", "published"])
def test_ids_and_seed_decide_the_draws(form):
    data = random_rows(1)
    batch = collate(data, "right")
    hidden = random_states(batch)

    def loss(seed=0, made=None):
        options = options_of(form=form, seed=seed)
        return goal_contrastive(output_of(hidden), made or batch, options).loss.item()

    torch.manual_seed(0)
    first = loss()
    torch.manual_seed(1)
    assert loss() == first
    assert loss(made=collate(data, "right")) == first
    assert loss(seed=1) != first
    others = [{**item, "id": item["id"] + "x"} for item in data]
    assert loss(made=collate(others, "right")) != first


# --- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"strategy": "cosin"}, r"'strategy' is wrong.*'cosine' or 'cosine_avg', got 'cosin'"),
    ({"form": "original"}, r"'form' is wrong.*'original'"),
    ({"temprature": 0.1}, r"Unknown setting 'temprature'. Did you mean 'temperature'\?"),
    ({"positive": 3}, r"Did you mean 'positives'\?"),
    ({"source_window": [0.5, 0.5]}, r"source_window must be \(low, high\)"),
    ({"goal_window": [0.8, 0.2]}, r"goal_window must be \(low, high\)"),
    ({"goal_window": [0, 1.5]}, r"goal_window must be \(low, high\)"),
    ({"form": "published", "temperature": 0.1}, r"'published' does not use temperature"),
    ({"form": "published", "goal_window": [0, 0.5]}, r"'published' does not use goal_window"),
    ({"form": "future", "source_percentile": 0.1}, r"'future' does not use source_percentile"),
    ({"form": "infonce", "goal_percentile": 0.1}, r"'infonce' does not use goal_percentile"),
    ({"form": "published", "goal_percentile": 1.1}, r"'goal_percentile' is wrong"),
    ({"temperature": 0}, r"'temperature' is wrong"),
    ({"positives": 0}, r"'positives' is wrong"),
])
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=r"^Options of the .* 'goal_contrastive': .*" + message):
        build_objective([TermConfig(name="goal_contrastive", options=options)])


def test_the_registry_builds_it():
    with pytest.raises(ConfigError, match=r"Did you mean 'goal_contrastive'\?"):
        build_objective([TermConfig(name="goal_contrastiv")])
    options = {"form": "future", "positives": 5, "negatives": 4, "source_window": [0, 0.5]}
    objective = build_objective([TermConfig(name="goal_contrastive", options=options)])
    assert "states" in objective.needs
    assert objective.rows == "pairs"
    batch = collate(random_rows(2), "right")
    output = output_of(random_states(batch))
    expected = goal_contrastive(output, batch, options_of(source_window=(0, 0.5)))
    assert objective(output, batch).loss.item() == expected.loss.item()


# --- several processes -----------------------------------------------------------------------


PARTS = [random_rows(11, 2), random_rows(12, 5)]


def shared_start():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)


def logarithm(weight, parts):
    """−log of the mean of σ(xᵀWx) over all rows of these parts."""
    values = [
        torch.sigmoid((x @ weight * x).sum())
        for part in parts
        for x in random_states(collate(PARTS[part], "right"), part)[:, 0]
    ]
    return -torch.log(global_mean(torch.stack(values).sum(), torch.tensor(len(values))))


def contrastive(weight, part, form):
    batch = collate(PARTS[part], "right")
    hidden = random_states(batch, part) @ weight
    return goal_contrastive(output_of(hidden), batch, options_of(form=form)).loss


def aside(weight, rank):
    """The first process's rows alone: the other one reads too and stands aside."""
    with excluded_from_reductions(rank == 1):
        return contrastive(weight, rank, "infonce")


def one_process(rank, folder):
    found = {}
    for name, make in (
        ("logarithm", lambda weight: logarithm(weight, [rank])),
        ("published", lambda weight: contrastive(weight, rank, "published")),
        ("future", lambda weight: contrastive(weight, rank, "future")),
        ("infonce", lambda weight: contrastive(weight, rank, "infonce")),
        ("aside", lambda weight: aside(weight, rank)),
    ):
        weight = shared_start().requires_grad_()
        loss = make(weight)
        loss.backward()
        gradient = weight.grad.clone()
        torch.distributed.all_reduce(gradient)
        found[name] = (loss.detach(), gradient / 2)
    nothing = torch.zeros((), dtype=torch.float64, requires_grad=True)
    empty = global_mean(nothing * 1.0, torch.tensor(0))
    found["empty"] = (empty.detach(), empty.detach())
    torch.save(found, folder / f"{rank}.pt")


def whole_states(batch, parts):
    """The states that the processes have of their own rows, at those rows' places in one batch."""
    hidden = torch.zeros(*batch.input_ids.shape, WIDTH, dtype=torch.float64)
    count, before = len(hidden) // 2, 0
    for part in parts:
        own = random_states(collate(PARTS[part], "right"), part)
        for place, side in ((before, 0), (count + before, 1)):
            rows = own.chunk(2)[side]
            hidden[place : place + len(rows), : own.shape[1]] = rows
        before += len(own) // 2
    return hidden


@pytest.mark.slow
def test_two_processes_with_unequal_rows_give_the_gradient_of_one(tmp_path, warm):
    in_two_processes(warm, one_process, tmp_path, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]

    def whole(name):
        weight = shared_start().requires_grad_()
        if name == "logarithm":
            loss = logarithm(weight, [0, 1])
        else:
            form, parts = ("infonce", [0]) if name == "aside" else (name, [0, 1])
            data = [item for part in parts for item in PARTS[part]]
            batch, options = collate(data, "right"), options_of(form=form)
            hidden = whole_states(batch, parts) @ weight
            loss, _, _ = plain(form, hidden, batch, data, "right", options)
        loss.backward()
        return loss.detach(), weight.grad

    for name in ("logarithm", "published", "future", "infonce", "aside"):
        loss, gradient = whole(name)
        for results in found:
            torch.testing.assert_close(results[name][0], loss, atol=1e-10, rtol=1e-10)
            torch.testing.assert_close(results[name][1], gradient, atol=1e-10, rtol=1e-10)
    assert found[0]["empty"][0].item() == 0.0
