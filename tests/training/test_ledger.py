"""Held-out scores equal those worked out one document at a time, whatever the windows; errors are honest."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.training.synthetic import DOMAINS, EOD, VOCAB_SIZE, tiny_base, write_tokens

from aurora_m.model import Decoder
from aurora_m.tokens import DomainTokens
from aurora_m.training import heldout_domains, score_heldout
from aurora_m.training.ledger import (
    LEDGER_SCHEMA,
    HeldoutScore,
    change_against,
    ledger_rows,
    read_base_bits,
    summarize,
    write_base_bits,
    write_ledger,
)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def model():
    decoder = Decoder(tiny_base().architecture.model_config_for(VOCAB_SIZE))
    decoder.init_weights(3)
    return decoder


@torch.no_grad()
def bits_of(model: Decoder, document: np.ndarray) -> float:
    """The document after an EOD, its own EOD not scored."""
    inputs = torch.tensor([[EOD, *document[:-2].tolist()]])
    nll = -torch.log_softmax(model.logits(model(inputs)), dim=-1)[0]
    return float(nll[torch.arange(len(document) - 1), torch.tensor(document[:-1].astype(np.int64))].sum()) / math.log(2)


def test_packed_scores_equal_those_of_documents_alone(model, tokens):
    # A window as long as the model allows holds whole documents; a document cut by a window's edge loses context, and
    # so this compares only where every document fits: one document per window row is not what packing does.
    documents = DomainTokens(tokens, "aa", "heldout")
    total = int(documents.lengths.sum())
    wide = Decoder(tiny_base(max_positions=total).architecture.model_config_for(VOCAB_SIZE))
    wide.load_state_dict({name: t for name, t in model.state_dict().items() if "positions" not in name}, strict=False)
    wide.embed_positions.weight.data[:64] = model.embed_positions.weight.data
    bits = np.array([bits_of(model, documents.document(index)) for index in range(documents.documents)])
    score = score_heldout(wide, tokens, ["aa"], total, precision="float32")["aa"]
    assert score.bpb == pytest.approx(bits.sum() / documents.bytes.sum(), rel=1e-5)
    assert score.documents == documents.documents and score.bytes == documents.bytes.sum()
    assert score.tokens == total - documents.documents


def test_the_batch_size_does_not_change_a_score(model, tokens):
    one, many = (
        score_heldout(model, tokens, list(DOMAINS), 32, batch_size=size, precision="float32") for size in (1, 7)
    )
    for domain in DOMAINS:
        assert one[domain].bpb == pytest.approx(many[domain].bpb, rel=1e-6)
        assert one[domain].stderr == pytest.approx(many[domain].stderr, rel=1e-4)


def test_a_cap_scores_whole_documents_and_their_bytes(model, tokens):
    capped = score_heldout(model, tokens, ["aa"], 32, heldout_tokens=100)["aa"]
    assert 1 <= capped.documents < 8 and capped.tokens <= 100 and capped.bytes == 4 * capped.tokens


def test_scoring_leaves_the_model_as_it_was(model, tokens):
    model.train()
    score_heldout(model, tokens, ["aa"], 32)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


def test_all_domains_with_held_out_documents_are_in_the_ledger(tokens):
    assert heldout_domains(tokens) == list(DOMAINS)


def test_the_standard_error_is_that_of_resampling_documents():
    random = np.random.default_rng(0)
    sizes = random.integers(50, 400, 200).astype(float)
    bits = sizes * random.normal(2.0, 0.3, 200)
    score = summarize(bits, sizes, tokens=1)
    picks = random.integers(0, 200, (4000, 200))
    resampled = bits[picks].sum(1) / sizes[picks].sum(1)
    assert score.bpb == pytest.approx(bits.sum() / sizes.sum())
    assert score.stderr == pytest.approx(resampled.std(), rel=0.1)


def test_one_document_has_no_standard_error():
    assert summarize(np.array([10.0]), np.array([5.0]), tokens=3).stderr is None


def rows(earlier, step, bpb, reference_step):
    return ledger_rows(
        earlier,
        {"aa": HeldoutScore(bpb, 0.1, 8, 100, 25)},
        phase="CAP",
        step=step,
        tokens=step * 10,
        reference_step=reference_step,
    )


def test_changes_are_against_the_reference_step():
    before = rows([], 5, 3.0, reference_step=10)
    at = rows(before, 10, 2.0, reference_step=10)
    after = rows(before + at, 15, 2.5, reference_step=10)
    assert [row["change"] for row in before + at + after] == [None, 0.0, 0.25]
    assert [row["base_bpb"] for row in before + at + after] == [None, 2.0, 2.0]


def test_the_ledger_is_written_with_its_schema(tmp_path):
    write_ledger(rows([], 0, 2.0, reference_step=3), tmp_path / "ledger.parquet")
    table = pq.read_table(tmp_path / "ledger.parquet")
    assert table.schema.equals(LEDGER_SCHEMA)
    assert table.to_pylist()[0] == {
        "phase": "CAP",
        "step": 0,
        "tokens": 0,
        "domain": "aa",
        "bpb": 2.0,
        "base_bpb": None,
        "change": None,
        "stderr": 0.1,
        "change_stderr": None,
        "documents": 8,
        "bytes": 100,
    }


def test_the_error_of_a_change_is_that_of_resampling_documents_with_their_base():
    random = np.random.default_rng(1)
    sizes = random.integers(50, 400, 300).astype(float)
    base = sizes * random.normal(2.0, 0.4, 300)
    bits = base * random.normal(1.03, 0.02, 300)  # hard documents are hard for both
    change, stderr = change_against(bits, base)
    assert change == pytest.approx(bits.sum() / base.sum() - 1)
    picks = random.integers(0, 300, (4000, 300))
    resampled = bits[picks].sum(axis=1) / base[picks].sum(axis=1) - 1
    assert stderr == pytest.approx(resampled.std(), rel=0.1)
    apart = summarize(bits, sizes, 1).stderr / (base.sum() / sizes.sum())
    assert stderr < 0.2 * apart
    assert change_against(bits[:1], base[:1])[1] is None


def test_bits_of_the_base_outlive_a_run(tmp_path):
    bits = {"aa": np.array([1.0, 2.0, 4.0]), "domain/with a name": np.array([3.0])}
    path = tmp_path / "base_bits.npz"
    write_base_bits(bits, path)
    found = read_base_bits(path)
    assert all(np.array_equal(found[domain], values) for domain, values in bits.items())
    path.write_bytes(path.read_bytes()[:100])
    assert read_base_bits(path) == {} and read_base_bits(tmp_path / "none.npz") == {}


def test_rows_have_the_error_of_their_change_where_the_base_is_known():
    def rows(bits, base_bits):
        score = summarize(np.array(bits), np.full(len(bits), 10.0), 1)
        base = [{"domain": "aa", "bpb": 1.0, "step": 0}]
        return ledger_rows(base, {"aa": score}, phase="CAP", step=5, tokens=9, reference_step=0, base_bits=base_bits)

    bits, base = [10.0, 21.0, 33.0], np.array([10.0, 20.0, 30.0])
    assert rows(bits, {"aa": base})[0]["change_stderr"] == change_against(np.array(bits), base)[1]
    assert rows(bits, {"aa": base[:2]})[0]["change_stderr"] is None  # other documents
    assert rows(bits, None)[0]["change_stderr"] is None
