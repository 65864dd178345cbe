"""What a phase's loss weighs: the mean over weights, domains read and not learned, tokens left out; alike on all ranks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.training.synthetic import tiny_config, write_tokens
from tests.training.test_parallel import a_run, run_jobs, same_within_tolerance
from tests.training.test_parallel import phases as parallel_phases
from tests.training.test_stage import go, metrics, with_phase
from tests.training.test_trainer import fresh_model, random_batch
from tokenizers import Tokenizer, models

from aurora_m.training.loss_weights import ignored_tokens, loss_factors, mean_loss, weigh
from aurora_m.training.phase_config import LossConfig
from aurora_m.training.trainer import accumulate_gradients, loss_by_domain
from aurora_m.workspace import RecipeError

WEIGHTS = {"aa": 0.25, "cc": 2.0}


@pytest.mark.parametrize("micro_batch", [1, 2, 5])
def test_loss_and_gradients_are_the_weighted_mean_of_the_whole_step(micro_batch):
    batch = weigh(random_batch(), LossConfig(weights=WEIGHTS), np.array([4, 12]))
    assert not np.isin(batch.targets, [4, 12]).any() and np.isin(random_batch().targets, [4, 12]).any()
    model, reference = fresh_model(), fresh_model()
    nll = accumulate_gradients(model, batch, micro_batch, torch.float32)
    positions, documents = (torch.from_numpy(array) for array in (batch.positions, batch.document_ids))
    hidden = reference(torch.from_numpy(batch.input_ids), positions=positions, document_ids=documents)
    logits, targets = reference.logits(hidden).flatten(0, 1), torch.from_numpy(batch.targets).flatten()
    each = F.cross_entropy(logits, targets, reduction="none")
    factors = torch.tensor([WEIGHTS.get(domain, 1.0) for domain in batch.domains]).repeat_interleave(32)
    loss = (each * factors).sum() / (factors * (targets >= 0)).sum()
    loss.backward()
    assert float(mean_loss(batch, nll)) == pytest.approx(float(loss.detach()), rel=1e-5)
    for (name, ours), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-6, rtol=1e-3), name


def test_a_domain_without_weight_gives_no_gradient_and_its_true_loss():
    batch = random_batch()
    learned = replace(batch, targets=batch.targets.copy())
    learned.targets[[0, 2, 4]] = -100
    read, left_out = fresh_model(), fresh_model()
    nll = accumulate_gradients(read, weigh(batch, LossConfig(weights={"aa": 0}), None), 2, torch.float32)
    accumulate_gradients(left_out, learned, 2, torch.float32)
    for (name, ours), theirs in zip(read.named_parameters(), left_out.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-7, rtol=1e-4), name
    plain = accumulate_gradients(fresh_model(), batch, 2, torch.float32)
    assert loss_by_domain(batch, nll.tolist()) == loss_by_domain(batch, plain.tolist())


def test_a_step_of_nothing_that_has_weight_changes_nothing():
    batch = weigh(random_batch(), LossConfig(weights=dict.fromkeys(("aa", "bb", "cc"), 0)), None)
    assert not np.any(loss_factors(batch))
    model = fresh_model()
    nll = accumulate_gradients(model, batch, 2, torch.float32)
    assert mean_loss(batch, nll) == 0 and nll.any()
    assert all(not parameter.grad.any() for parameter in model.parameters())


def test_batches_pass_untouched_where_nothing_is_weighed():
    batch = random_batch()
    assert weigh(batch, None, None) is batch and weigh(batch, LossConfig(ignore=["x"]), None) is batch


def test_a_domain_that_is_only_read_is_not_learned_in_a_run(tmp_path):
    tokens = write_tokens(tmp_path / "tokens")
    losses = {}
    for name, loss in (("all", None), ("ones", {"weights": {"aa": 1}}), ("read", {"weights": {"bb": 0}})):
        go(tokens, tmp_path / name, with_phase(0, loss=loss) if loss else None)
        rows = [row for row in metrics(tmp_path / name) if row["phase"] == "base"]
        losses[name] = [row["loss_by_domain"] for row in rows]
        if name == "read":
            assert [row["loss"] for row in rows] == pytest.approx([row["loss_by_domain"]["aa"] for row in rows])
    assert losses["read"][0] == losses["all"][0]  # the first step's, before anything was learned
    assert losses["read"][-1]["bb"] > losses["all"][-1]["bb"] + 0.01
    assert [row["aa"] for row in losses["ones"]] == pytest.approx([row["aa"] for row in losses["all"]], rel=1e-5)


def test_tokens_are_named_as_in_the_tokenizer(tmp_path):
    names = {"<|endoftext|>": 0, "<fim_middle>": 3, "a": 4}
    Tokenizer(models.WordLevel(names, "a")).save(str(tmp_path / "tokenizer.json"))
    assert ignored_tokens(tiny_config().phases, tmp_path / "none") == {}
    (phase, _) = with_phase(0, loss={"ignore": ["<fim_middle>", "<|endoftext|>"]}).phases
    assert {name: ids.tolist() for name, ids in ignored_tokens([phase], tmp_path).items()} == {"base": [3, 0]}
    (phase, _) = with_phase(0, loss={"ignore": ["<fim_medium>"]}).phases
    with pytest.raises(RecipeError, match="phase base: loss.ignore names '<fim_medium>', which is no token"):
        ignored_tokens([phase], tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"dd": 1}, "loss.weights names an unknown domain 'dd'"), ({"aa": 0, "bb": 0}, "nothing would be learned")],
)
def test_weights_that_cannot_be_meant_are_refused(tmp_path, given, message):
    with pytest.raises(RecipeError, match=message):
        go(write_tokens(tmp_path / "tokens"), tmp_path / "out", with_phase(0, loss={"weights": given}))
    assert not (tmp_path / "out").exists()


def test_weights_and_a_growing_batch_are_the_same_on_all_meshes(tmp_path):
    tokens = write_tokens(tmp_path / "tokens")
    first, second = parallel_phases()
    first |= {"tokens_per_step": {"from": 128, "to": 256, "over": 200}, "loss": {"weights": {"bb": 0}}}
    second |= {"loss": {"weights": {"bb": 0.25}}}
    meshes = {"alone": (1, {}), "tensor": (2, {"tensor": 2}), "pipeline data": (4, {"pipeline": 2})}
    config = {"phases": [first, second], "checkpoint": {"every": 9000}, "ledger": {"every": 9000}}
    jobs = []
    for name, (processes, parallel) in meshes.items():
        run = a_run(tmp_path / name, tokens, "llama", parallel)
        run["config"] |= config
        jobs.append({"processes": processes, "runs": [run]})
    assert {code for codes in run_jobs(tmp_path, jobs) for code in codes} == {0}
    for name in list(meshes)[1:]:
        same_within_tolerance(tmp_path / "alone", tmp_path / name)
