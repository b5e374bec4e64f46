"""Layers that the reference fusion operators share, and the sizes of what they fuse."""

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

# benches/training.py measures the same operators at other sizes and with dropout.
SIZES = SimpleNamespace(rows=4, width=8, dropout=0.0)


def sinusoidal(length, width):
    half = width // 2
    positions = torch.arange(length, dtype=torch.float64)[:, None]
    steps = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float64) / max(half - 1, 1))
    return torch.cat([torch.sin(positions * steps), torch.cos(positions * steps)], 1).float()


def add_positions(x):
    return x + sinusoidal(x.shape[1], x.shape[2])


def mean(x, mask):
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1e-9)


def apply_dropout(module, x):
    return F.dropout(x, SIZES.dropout, module.training) if SIZES.dropout else x


class Operator(nn.Module):
    """`parts`: (values, mask, present) of each modality; vectors for operators that pool."""

    sequences = False

    def concat(self, parts):
        return torch.cat([t for x, _, p in parts for t in (x, p[:, None])], 1)


class Attention(nn.Module):
    """Separate projections with mm's parameter names, PyTorch's fused attention."""

    def __init__(self, width, heads):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.heads = heads

    def forward(self, x, context, mask):
        split = lambda t: t.view(t.shape[0], t.shape[1], self.heads, -1).transpose(1, 2)
        q, k, v = split(self.q_proj(x)), split(self.k_proj(context)), split(self.v_proj(context))
        mask = None if mask is None else mask[:, None, None, :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=SIZES.dropout if self.training else 0.0)
        # For a query without keys PyTorch returns NaN or zeros, depending on the version; the operators mask such rows.
        return self.out_proj(torch.nan_to_num(y).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 2 * width), "fc2": nn.Linear(2 * width, width)})

    def forward(self, x, mask):
        y = self.layer_norm1(x)
        x = x + apply_dropout(self, self.self_attn(y, y, mask))
        return x + apply_dropout(self, self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.layer_norm2(x)))))


class Transformer(nn.Module):
    def __init__(self, width, layers, heads):
        super().__init__()
        self.layers = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x, mask):
        for layer in self.layers:
            x = layer(x, mask)
        return self.final_layer_norm(x)
