"""Distillation of a guide against its equation, with candidates that a teacher does not know."""

import math

import pytest
import torch

from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.errors import ConfigError
from rewardsteer.objectives.counting import count_terms
from rewardsteer.objectives.distillation import build
from tests.objectives.test_objectives import assert_same, vocabulary_model

OPTIONS = {"weight": 1.5, "law": 1.0, "differences": 0.3, "level": 0.2, "unseen": 0.1}


def make_rows(seed=0, counts=(2, 0, 3)):
    generator = torch.Generator().manual_seed(seed)

    def ids(*shape):
        return torch.randint(3, 70, shape, generator=generator).tolist()

    rows = []
    for number, count in enumerate(counts):
        teacher = torch.randn(count, 4, generator=generator)
        if number == 2:
            teacher[1, 2] = teacher[2] = math.nan  # one token; a whole prefix
        rows.append({
            "id": str(number), "prompt_ids": ids(2 + number), "chosen_ids": ids(6),
            "rejected_ids": [], "candidate_lengths": [0, 3, 6][:count],
            "tokens": ids(count, 4), "teacher": teacher.tolist(),
            "log_policy": torch.randn(count, 9, generator=generator).log_softmax(1)[:, :4].tolist(),
            "drawn": [1, 3, 0][:count], "unseen": ids(count, 2),
        })
    return rows


def plain_loss(model, rows):
    """From the logits of the Hugging Face model, prefix by prefix and candidate by candidate."""
    losses = []
    for row in rows:
        logits = model.carrier(torch.tensor([row["prompt_ids"] + row["chosen_ids"]])).logits[0]
        for at, length in enumerate(row["candidate_lengths"]):
            own = logits[len(row["prompt_ids"]) + length - 1]
            known = [k for k in range(4) if not math.isnan(row["teacher"][at][k])]
            q = own[row["tokens"][at]][known]
            u = torch.tensor(row["teacher"][at])[known].double()
            p = torch.tensor(row["log_policy"][at])[known].double()
            loss = torch.zeros((), dtype=torch.double)
            mean = q.mean() if known else 0.0
            if known:
                for weight in (0.75, 1.5, 3.0):
                    t, s = (p + weight * u).softmax(0), (p + weight * q).log_softmax(0)
                    loss = loss + (t * (t.log() - s)).sum() / 3
                loss = loss + 0.3 * ((q - mean) - (u - u.mean())).square().mean()
                if row["drawn"][at] in known:
                    drawn = known.index(row["drawn"][at])
                    loss = loss + 0.2 * (q[drawn] - u[drawn]).square()
            mean = mean.detach() if known else 0.0
            losses.append(loss + 0.1 * (own[row["unseen"][at]] - mean).square().mean())
    return torch.stack(losses).mean()


def test_loss_equals_its_equation():
    model, data = vocabulary_model("llama"), make_rows()
    batch = to_batch(PairCollator(2, "left", paired=False, prefixes="candidate_lengths")(data))
    objective = build(**OPTIONS)
    result = objective(model(batch, objective.needs), batch)
    assert_same(model, result.loss, plain_loss(model, data))
    assert count_terms(objective, batch).tolist() == [5.0]


def test_a_student_that_is_the_teacher_loses_nothing():
    model, data = vocabulary_model("llama"), make_rows(counts=(2, 3))
    batch = to_batch(PairCollator(2, paired=False, prefixes="candidate_lengths")(data))
    objective = build(weight=2.0, unseen=0.0)
    output = model(batch, objective.needs)
    teacher = output.candidate_rewards[:, :4].detach().float()
    batch.candidates = batch.candidates._replace(teacher=teacher)
    result = objective(output, batch)
    assert float(result.loss) < 1e-10
    assert float(result.metrics["best_agrees"]) == 1
    assert float(result.metrics["guidance_lost"]) < 1e-6
    figures = {name: figure(output, batch) for name, figure in objective.figures.items()}
    assert figures["accuracy"].tolist() == [1, 1]
    assert (figures["guidance_kl"] > 0).all()


def test_a_process_without_rows_takes_part_with_nothing():
    model = vocabulary_model("llama")
    batch = to_batch(PairCollator(2, paired=False, prefixes="candidate_lengths")([]))
    objective = build()
    assert float(objective(model(batch, objective.needs), batch).loss) == 0


@pytest.mark.parametrize("options", [{"weight": 0}, {"law": -1}, {"level": "much"}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="must be a number"):
        build(**options)
