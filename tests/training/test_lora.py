"""Training with adapters: the ledger and all else as ever, small checkpoints, a plain merged model at the end."""

import pytest
import torch
from safetensors.torch import load_file
from tests.training.synthetic import VOCAB_SIZE, tiny_base, tiny_config, write_tokens
from tests.training.test_stage import go, ledger, metrics

from aurora_m.model import BaseConfig, Decoder, save_model
from aurora_m.training import StoppedByUser
from aurora_m.training import stage as stage_module
from aurora_m.training import trainer as trainer_module
from aurora_m.training.checkpoint import _SafeReader, list_checkpoints
from aurora_m.workspace import RecipeError

LORA = {"rank": 4, "alpha": 8, "targets": ["q", "v", "gate", "up", "down"]}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("train") / "tokens")


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    architecture = tiny_base(family="qwen2").architecture
    assert architecture is not None
    model = Decoder(architecture.model_config_for(VOCAB_SIZE))
    model.init_weights(3)
    model.layers[0].bfloat16().float()  # what a bfloat16 checkpoint holds; the other layer needs all of float32
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def adapted(tokens, base_folder, tmp_path_factory):
    """A run with adapters that nothing disturbed."""
    out = tmp_path_factory.mktemp("adapted")
    go(tokens, out, tiny_config(lora=LORA), BaseConfig(path=str(base_folder)), base_folder)
    return out


def test_losses_fall_and_the_ledger_is_kept(adapted):
    losses = [row["loss"] for row in metrics(adapted) if row["phase"] == "base"]
    assert losses[-1] < losses[0]
    rows = ledger(adapted)
    assert {row["domain"] for row in rows} == {"aa", "bb", "cc"}
    assert min(row["step"] for row in rows) == 0 and max(row["step"] for row in rows) == 22


def test_the_released_weights_differ_from_the_base_where_there_are_adapters_and_nowhere_else(adapted, base_folder):
    before = load_file(base_folder / "model.safetensors")
    after = load_file(adapted / "CAP" / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    targets = ("self_attn.q_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert changed == {f"model.layers.{layer}.{target}.weight" for layer in range(2) for target in targets}
    assert load_file(adapted / "initial" / "model" / "model.safetensors").keys() == before.keys()


def test_checkpoints_hold_adapters_and_no_base(adapted):
    names = _SafeReader(list_checkpoints(adapted / "CAP")[-1]).read_metadata().state_dict_metadata
    assert names and all(".lora_" in name for name in names if name.startswith(("model.", "optimizer.")))
    assert sum(name.startswith("optimizer.") for name in names) == 3 * sum(name.startswith("model.") for name in names)


def test_a_stopped_run_ends_as_if_it_never_was(tokens, base_folder, adapted, tmp_path, monkeypatch):
    config, base = tiny_config(lora=LORA), BaseConfig(path=str(base_folder))
    real, count = trainer_module.accumulate_gradients, 0

    def stop_at_step_15(*arguments):
        nonlocal count
        count += 1
        if count == 15:
            raise StoppedByUser("here")
        return real(*arguments)

    monkeypatch.setattr(trainer_module, "accumulate_gradients", stop_at_step_15)
    with pytest.raises(StoppedByUser):
        go(tokens, tmp_path, config, base, base_folder)
    go(tokens, tmp_path, config, base, base_folder)
    assert metrics(tmp_path) == metrics(adapted)
    assert ledger(tmp_path) == ledger(adapted)
    weights = [(out / "CAP" / "model" / "model.safetensors").read_bytes() for out in (tmp_path, adapted)]
    assert weights[0] == weights[1]


def test_other_adapters_are_another_run(base_folder, tokens):
    base = BaseConfig(path=str(base_folder))
    starts = [
        stage_module.run_start(tiny_config(**changes), base, base_folder, tokens, 1)
        for changes in ({}, {"lora": LORA}, {"lora": LORA | {"rank": 8}})
    ]
    assert starts[0] != starts[1] != starts[2]


def test_a_model_from_scratch_has_nothing_to_adapt(tokens, tmp_path):
    with pytest.raises(RecipeError, match=r"train\.lora adapts an existing model"):
        go(tokens, tmp_path, tiny_config(lora=LORA))
