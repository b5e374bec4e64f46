"""Outputs of every fusion operator, implemented here from its paper with PyTorch's layers, with which mm-fusion is compared.

    python fusion.py OUT.safetensors [--seed N]

Packages: torch safetensors numpy

For each operator: its weights under mm's names (KIND/w/NAME), the fused features (KIND/y), and the gradients of the sum of their squares
with respect to the inputs (KIND/g0 …). Inputs are shared: x0 (audio), x1 (image), x2 (text, the main modality), each [rows, length, width]
with masks m0 …; the second row has no image, the third no audio.
"""

import argparse

import torch
import torch.nn.functional as F
from fusion_layers import SIZES, mean
from fusion_sequences import Bottleneck, CoAttention, CrossAttention, MemoryFusion, Mult, NonLocal, Perceiver, TransformerFusion
from fusion_vectors import Bilinear, Concat, Film, Gated, LowRank, Mag, Mctn, Misa, MixtureOfExperts, Mmtm, Multiplicative, TensorFusion, WeightedSum
from safetensors.torch import save_file

LENGTHS = (5, 4, 6)
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]], dtype=torch.float32)

OPERATORS = {
    "concat": (Concat, {"hidden_dim": 6}), "weighted_sum": (WeightedSum, {}), "gated": (Gated, {}), "multiplicative": (Multiplicative, {}),
    "tensor_fusion": (TensorFusion, {"modality_dim": 3, "hidden_dim": 10}), "low_rank_fusion": (LowRank, {"rank": 4}), "mlb": (lambda: Bilinear(1, "mlb"), {}),
    "mfb": (lambda: Bilinear(3, "mfb"), {"num_factors": 3}), "mutan": (lambda: Bilinear(3, "mutan"), {"rank": 3}), "film": (Film, {}),
    "mmtm": (Mmtm, {}), "mag": (Mag, {}), "misa": (Misa, {}), "mixture_of_experts": (MixtureOfExperts, {}), "mctn": (Mctn, {}),
    "transformer": (TransformerFusion, {}), "cross_attention": (CrossAttention, {}), "co_attention": (CoAttention, {"hidden_dim": 5}),
    "mult": (Mult, {"num_layers": 1, "num_heads": 2, "dropout": 0.0}), "bottleneck": (Bottleneck, {"num_tokens": 2}), "perceiver": (Perceiver, {"num_latents": 3}),
    "non_local": (NonLocal, {}), "mfn": (MemoryFusion, {"hidden_dim": 4, "memory_dim": 6}),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    out = {"present": PRESENT}
    inputs, masks = [], []
    for n, length in enumerate(LENGTHS):
        counts = torch.randint(1, length + 1, (SIZES.rows,))
        counts[0] = length
        masks.append(torch.arange(length)[None] < counts[:, None])
        inputs.append(torch.randn(SIZES.rows, length, SIZES.width))
        out[f"x{n}"], out[f"m{n}"] = inputs[n], masks[n].to(torch.uint8)
    for kind, (make, settings) in OPERATORS.items():
        model = make()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.4)
        leaves = [x.clone().requires_grad_() for x in inputs]
        parts = []
        for n, x in enumerate(leaves):
            p, m = PRESENT[:, n], masks[n] & (PRESENT[:, n, None] > 0)
            if kind == "mfn":  # sequences of one length
                x, m = (F.pad(t[:, :5], pad) for t, pad in ((x, (0, 0, 0, max(0, 5 - x.shape[1]))), (m, (0, max(0, 5 - m.shape[1])))))
                p = p * m.any(1)
            if model.sequences:
                parts.append((x * m[..., None], m, p))
            else:
                parts.append((mean(x, masks[n]) * p[:, None], None, p))
        y = model.eval()(parts)
        (y**2).sum().backward()
        out[f"{kind}/y"] = y.detach()
        for n, x in enumerate(leaves):
            out[f"{kind}/g{n}"] = torch.zeros_like(x) if x.grad is None else x.grad
        for name, parameter in model.named_parameters():
            out[f"{kind}/w/operator.{name}"] = parameter.detach().clone()
        text = ",".join(f'"{k}":{str(v).lower()}' for k, v in settings.items())
        out[f"{kind}/settings"] = torch.tensor(list(f"{{{text}}}".encode()), dtype=torch.uint8)
    save_file({k: v.contiguous() for k, v in out.items()}, arguments.out)


if __name__ == "__main__":
    main()
