#!/usr/bin/env python3
"""Writes the fixture of mm-core's NF4 test: a few values quantized by bitsandbytes.

    python xtask/parity/four_bit.py crates/mm-core/src/fixtures/nf4.json     (torch, bitsandbytes 0.50; no GPU)
"""
import json, pathlib, sys
import torch, bitsandbytes.functional as bnb
torch.manual_seed(7); weight = torch.randn(13, 25) * torch.rand(13, 1).mul(3).exp()
packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
out = pathlib.Path(sys.argv[1]); out.parent.mkdir(exist_ok=True)
flat = lambda t: [float(f"{v:.9g}") for v in t.flatten().tolist()]
out.write_text(json.dumps({"weight": flat(weight), "shape": list(weight.shape), "halves": packed.flatten().tolist(), "scales": flat(state.absmax), "unpacked": flat(bnb.dequantize_4bit(packed, state))}))
