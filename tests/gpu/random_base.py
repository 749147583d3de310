"""A model with the sizes of DeepSeek-R1-Distill-Qwen-1.5B and random weights: ``python -m tests.gpu.random_base FOLDER``."""

from __future__ import annotations

import argparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr_lite import bases
from rlvr_lite.planning import config_of

NAME = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--layers", type=int, help="blocks; by default all 28")
    given = parser.parse_args()
    sizes = dict(config_of(NAME))
    if given.layers:
        sizes["num_hidden_layers"] = given.layers
    config = bases.config_object(NAME, sizes)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(given.folder)
    AutoTokenizer.from_pretrained(bases.EMBEDDED["tiny"]).save_pretrained(given.folder)


if __name__ == "__main__":
    main()
