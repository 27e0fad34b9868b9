"""Logits of small GGUF files of every architecture by llama.cpp, against those that ft computes before it writes them.

Usage: FT_TEST_GGUF_DIR=DIR cargo test -p ft-quant --test it every_architecture, then gguf_logits.py DIR
Needs llama-cpp-python.
"""
import glob
import json
import os
import sys

import llama_cpp
import numpy as np

for file in sorted(glob.glob(os.path.join(sys.argv[1], "*.gguf"))):
    name = os.path.basename(file)[:-5]
    expected = json.load(open(file[:-5] + ".json"))
    ids = expected["ids"]
    logits = np.array(expected["logits"], dtype=np.float64).reshape(len(ids), -1)
    try:
        # -1 leaves the settings of YaRN to the file.
        yarn = {f"yarn_{key}": -1.0 for key in ("ext_factor", "attn_factor", "beta_fast", "beta_slow")}
        model = llama_cpp.Llama(file, n_ctx=64, n_threads=1, verbose=False, logits_all=True, **yarn)
    except Exception as error:
        print(f"{name:22} does not load: {error}")
        continue
    model.eval(ids)
    found = np.array(model.scores[: len(ids)], dtype=np.float64)
    worst = np.abs(found - logits).max() / np.abs(logits).max()
    print(f"{name:22} largest difference {worst:.2e} of the largest logit")
