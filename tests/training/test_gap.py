"""A policy that is not scored as it was sampled stops before its first update, with the likely cause."""

from __future__ import annotations

import pytest
import torch

from rlvr_lite.errors import UserError
from rlvr_lite.training._gap import check_gap
from tests.zoo import ZOO, random_model

CPU = torch.device("cpu")


def test_rounding_passes_and_more_does_not() -> None:
    model = random_model(ZOO["llama"]())
    check_gap(model, 1e-4, CPU)
    check_gap(model, None, CPU)
    with pytest.raises(UserError, match=r"differ by up to 0\.5 nats"):
        check_gap(model, 0.5, CPU)
    check_gap(model, 0.5, CPU, autocast=True)
    check_gap(model.bfloat16(), 0.5, CPU)
    with pytest.raises(UserError, match="explains 2"):
        check_gap(model, 3.0, CPU)


@pytest.mark.parametrize("name", ["llama_dropout", "phi", "starcoder2"])
def test_dropout_that_acts_is_named(name: str) -> None:
    model = random_model(ZOO[name]()).train()
    with pytest.raises(UserError, match=r"dropout acts while scoring \(model\.\S+ is 0\.3\)"):
        check_gap(model, 3.0, CPU)


def test_an_adapters_own_dropout_is_warned_about() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(random_model(ZOO["llama"]()), LoraConfig(r=2, lora_dropout=0.3, target_modules=["q_proj"]))
    with pytest.warns(UserWarning, match="adapter's dropout"):
        check_gap(model.train(), 3.0, CPU)
    with pytest.raises(UserError, match="another precision"):
        check_gap(model.eval(), 3.0, CPU)
