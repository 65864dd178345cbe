"""The train section refuses what cannot be meant, and says what would do."""

import subprocess
import sys

import pytest
from pydantic import ValidationError
from tests.training.synthetic import tiny_config

from aurora_m.training import LearningRate, PhaseConfig, TrainConfig

PHASE = {
    "name": "CAP",
    "tokens": "1M",
    "mixture": {"aa": 1.0},
    "sequence_length": 256,
    "tokens_per_step": 4096,
    "lr": {"peak": 1e-3},
}


def test_the_config_does_not_import_torch():
    code = (
        "import sys, aurora_m.training, aurora_m.evaluation; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("warmup", "tokens"), [(0, 0), ("2M", 2_000_000), ("20 steps", 81_920), ("2K steps", 8_192_000), (500, 500)]
)
def test_a_warmup_is_tokens_or_steps(warmup, tokens):
    assert LearningRate(peak=1e-3, warmup=warmup).warmup_tokens(4096) == tokens


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens_per_step": 4000}, "not a multiple of sequence_length 256; the nearest is 4096"),
        ({"tokens_per_step": 100}, "the nearest is 256"),
        ({"tokens": 4095}, "4095 tokens are less than one step of 4096"),
        ({"name": "../CAP"}, "pattern"),
        (
            {"lr": {"peak": 1e-3, "warmup": "300 steps"}},
            "warm-up of 1228800 tokens does not fit in a schedule of 1000000",
        ),
        ({"lr": {}}, "peak is missing"),
        ({"lr": {"continues": True, "peak": 1e-3}}, "takes no peak"),
        ({"lr": {"peak": 1e-4, "to": 1e-3}}, "to 0.001 is above peak 0.0001"),
        ({"lr": {"peak": 1e-4, "warmup": "soon"}}, "'soon' is not a quantity"),
        ({"lr": {"peak": 1e-4, "warmup": -5}}, "is negative"),
        ({"lr": {"peak": 1e-3, "start": 1e-4}}, "start 0.0001 is where a warm-up begins, and there is none"),
        ({"lr": {"peak": 1e-3, "start": 2e-3, "warmup": 500}}, "start 0.002 is above peak 0.001"),
        ({"lr": {"peak": 1e-3, "decay": "infinite", "to": 1e-4}}, "decay infinite needs to.* and over"),
        ({"lr": {"peak": "first"}}, "Input should be 'last'"),
        (
            {"mixture": {"temperature": 2, "domains": ["aa"], "share": {"bb": 0.1}}},
            "mixture has 'share' beside domains",
        ),
        ({"mixture": {"domains": ["aa"]}}, "temperature or unimax, one of them"),
        ({"mixture": {"temperature": 2, "unimax": 4, "domains": ["aa"]}}, "temperature or unimax, one of them"),
        ({"mixture": {"temperature": 0, "domains": ["aa"]}}, "greater than 0"),
        ({"mixture": {"temperature": 2, "domains": ["aa", "aa"]}}, "each is named once"),
        ({"mixture": {"unimax": 4, "domains": ["aa"], "shares": {"aa": 0.1}}}, "aa has a share in the mixture and is"),
        ({"mixture": {"unimax": 4, "domains": ["aa"], "shares": {"bb": 1}}}, "fixed shares sum to 1 and leave aa none"),
        ({"rest": {"unimax": 4, "domains": ["aa"]}}, "rest is written `mixture: "),
        ({"ramp": {"from": 4, "over": 9}}, "ramp is written `tokens_per_step: "),
        ({"loss": {"weights": {"aa": -1}}}, "greater than or equal to 0"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_a_phase_that_cannot_be_meant_is_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        PhaseConfig.model_validate(PHASE | change)


@pytest.mark.parametrize(
    ("names", "continues", "message"),
    [
        (["CAP", "CAP"], [False, False], "phase CAP appears twice"),
        (["CAP", "base"], [False, False], "must come first"),
        (["CAP", "initial"], [False, False], "taken by a folder"),
        (["CAP", "CAT"], [True, False], "needs a phase before it"),
    ],
)
def test_phases_that_do_not_follow_each_other_are_refused(names, continues, message):
    phases = [
        PHASE | {"name": name, "lr": {"continues": True} if goes_on else {"peak": 1e-3}}
        for name, goes_on in zip(names, continues, strict=True)
    ]
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate({"phases": phases, "ledger": {"every": 1}, "checkpoint": {"every": 1}})


@pytest.mark.parametrize(("tokens", "steps"), [(4096, 1), (6000, 1), (6144, 2), (8192, 2), (1_000_000, 244)])
def test_tokens_become_the_nearest_whole_number_of_steps(tokens, steps):
    assert PhaseConfig.model_validate(PHASE | {"tokens": tokens}).steps == steps


def test_a_config_survives_json():
    config = tiny_config()
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("rule", [{"temperature": 3.3}, {"unimax": 4.0}])
def test_a_mixture_by_rule_is_written_as_it_was_read(rule):
    mixture = {**rule, "domains": ["aa", "bb"], "shares": {"en": 0.1}}
    phase = PhaseConfig.model_validate(PHASE | {"mixture": {**mixture, "shares": {"en": "10%"}}})
    assert phase.model_dump(mode="json")["mixture"] == mixture
    assert PhaseConfig.model_validate_json(phase.model_dump_json(exclude_defaults=True)) == phase


def test_what_later_versions_added_is_written_only_where_it_is_used():
    """A phase's fingerprint is that of its settings: an older run's phases must stay what they were."""
    written = PhaseConfig.model_validate(PHASE).model_dump(mode="json")
    assert sorted(written) == ["lr", "mixture", "name", "sequence_length", "tokens", "tokens_per_step"]
    assert sorted(written["lr"]) == ["continues", "decay", "over", "peak", "to", "warmup"]
