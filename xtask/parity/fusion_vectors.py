"""Reference fusion operators that read one vector of each modality."""

import math

import torch
import torch.nn.functional as F
from fusion_layers import SIZES, Operator, Transformer
from torch import nn


class Concat(Operator):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3 * SIZES.width + 3, 6), nn.Linear(6, SIZES.width)

    def forward(self, parts):
        return self.fc2(F.relu(self.fc1(self.concat(parts))))


class WeightedSum(Operator):
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(3, SIZES.width))
        self.out_proj = nn.Linear(SIZES.width, SIZES.width)

    def forward(self, parts):
        x = torch.stack([x for x, _, _ in parts], 1)
        there = torch.stack([p for _, _, p in parts], 1)[..., None]
        scores = self.weights[None].expand_as(x).masked_fill(there == 0, -torch.inf)
        return self.out_proj((x * scores.softmax(1)).sum(1))


class Gated(Operator):
    def __init__(self):
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(SIZES.width, SIZES.width) for _ in range(3))
        self.gates = nn.ModuleList(nn.Linear(3 * SIZES.width + 3, SIZES.width) for _ in range(3))

    def forward(self, parts):
        z = self.concat(parts)
        terms = [torch.sigmoid(g(z)) * p[:, None] * torch.tanh(h(x)) for (x, _, p), h, g in zip(parts, self.hidden, self.gates)]
        return sum(terms)


class Interaction(nn.Module):
    def __init__(self, left):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(left, SIZES.width, SIZES.width))
        self.left, self.right = nn.Linear(left, SIZES.width, bias=False), nn.Linear(SIZES.width, SIZES.width)

    def forward(self, x, y):
        return torch.einsum("ni,ijo,nj->no", x, self.weight, y) + self.left(x) + self.right(y)


class Multiplicative(Operator):
    def __init__(self):
        super().__init__()
        self.interactions = nn.ModuleList(Interaction(SIZES.width) for _ in range(2))
        self.out_proj = nn.Linear(SIZES.width, SIZES.width)

    def forward(self, parts):
        x = self.interactions[0](parts[0][0], parts[1][0])
        return self.out_proj(self.interactions[1](x, parts[2][0]))


class TensorFusion(Operator):
    def __init__(self, part=3, hidden=10):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(SIZES.width, part) for _ in range(3))
        self.fc1, self.fc2 = nn.Linear((part + 1) ** 3, hidden), nn.Linear(hidden, SIZES.width)

    def forward(self, parts):
        one = torch.ones(SIZES.rows, 1)
        a, b, c = (torch.cat([one, F.relu(f(x)) * p[:, None]], 1) for (x, _, p), f in zip(parts, self.parts))
        product = torch.einsum("ni,nj,nk->nijk", a, b, c).flatten(1)
        return self.fc2(F.relu(self.fc1(product)))


class LowRank(Operator):
    def __init__(self, rank=4):
        super().__init__()
        self.factors = nn.ParameterList(torch.zeros(rank, SIZES.width + 1, SIZES.width) for _ in range(3))
        self.fusion_weights = nn.Parameter(torch.zeros(rank))
        self.fusion_bias = nn.Parameter(torch.zeros(SIZES.width))

    def forward(self, parts):
        one = torch.ones(SIZES.rows, 1)
        product = 1
        for (x, _, _), factor in zip(parts, self.factors):
            product = product * torch.matmul(torch.cat([x, one], 1), factor)
        return (self.fusion_weights[:, None, None] * product).sum(0) + self.fusion_bias


class Bilinear(Operator):
    def __init__(self, times, kind):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(SIZES.width, SIZES.width * times) for _ in range(3))
        self.out_proj = nn.Linear(SIZES.width, SIZES.width)
        self.times, self.kind = times, kind

    def forward(self, parts):
        product = 1
        for (x, _, p), layer in zip(parts, self.parts):
            y = layer(x) if self.kind == "mfb" else torch.tanh(layer(x))
            product = product * torch.where(p[:, None] > 0, y, torch.ones_like(y))
        if self.kind == "mfb":
            z = product.view(SIZES.rows, SIZES.width, self.times).sum(2)
            z = torch.sign(z) * torch.sqrt(z.abs() + 1e-6)
            product = F.normalize(z, dim=1) * math.sqrt(SIZES.width)
        if self.kind == "mutan":
            product = torch.tanh(product.view(SIZES.rows, self.times, SIZES.width).sum(1))
        return self.out_proj(product)


class FilmBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.film, self.fc, self.norm = nn.Linear(2 * SIZES.width + 2, 2 * SIZES.width), nn.Linear(SIZES.width, SIZES.width), nn.LayerNorm(SIZES.width)


class Film(Operator):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(SIZES.width, SIZES.width)
        self.blocks = nn.ModuleList(FilmBlock() for _ in range(2))

    def forward(self, parts):
        condition = self.concat(parts[:2])
        x = self.fc(parts[2][0])
        for block in self.blocks:
            gamma, beta = block.film(condition).chunk(2, 1)
            x = x + F.relu((1 + gamma) * block.norm(block.fc(x)) + beta)
        return x


class Mmtm(Operator):
    def __init__(self):
        super().__init__()
        self.squeeze = nn.Linear(3 * SIZES.width + 3, 3 * SIZES.width // 4)
        self.excite = nn.ModuleList(nn.Linear(3 * SIZES.width // 4, SIZES.width) for _ in range(3))
        self.out_proj = nn.Linear(3 * SIZES.width, SIZES.width)

    def forward(self, parts):
        z = F.relu(self.squeeze(self.concat(parts)))
        return self.out_proj(torch.cat([x * 2 * torch.sigmoid(e(z)) for (x, _, _), e in zip(parts, self.excite)], 1))


class Shift(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.shift = nn.Linear(2 * SIZES.width, SIZES.width), nn.Linear(SIZES.width, SIZES.width)


class Mag(Operator):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(SIZES.width, SIZES.width)
        self.others = nn.ModuleList(Shift() for _ in range(2))
        self.norm = nn.LayerNorm(SIZES.width)

    def forward(self, parts):
        text = parts[2][0]
        x, h = self.base(text), 0
        for (y, _, p), other in zip(parts, self.others):
            h = h + F.relu(other.gate(torch.cat([y, text], 1))) * other.shift(y) * p[:, None]
        alpha = torch.clamp(x.norm(dim=1, keepdim=True) / (h.norm(dim=1, keepdim=True) + 1e-6) * 0.5, max=1)
        return self.norm(x + alpha * h)


class Expert(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, SIZES.width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(SIZES.width, SIZES.width), "fc2": nn.Linear(SIZES.width, SIZES.width)})

    def forward(self, x):
        x = self.fc(x)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](F.gelu(x))))


class MixtureOfExperts(Operator):
    def __init__(self):
        super().__init__()
        wide = 3 * SIZES.width + 3
        self.experts = nn.ModuleDict({"0": Expert(SIZES.width), "1": Expert(SIZES.width), "2": Expert(SIZES.width), "all": Expert(wide)})
        self.router = nn.Linear(wide, 4)

    def forward(self, parts):
        z = self.concat(parts)
        there = torch.cat([torch.stack([p for _, _, p in parts], 1), torch.ones(SIZES.rows, 1)], 1)
        shares = self.router(z).masked_fill(there == 0, -torch.inf).softmax(1)
        outputs = [self.experts[str(n)](x) for n, (x, _, _) in enumerate(parts)] + [self.experts["all"](z)]
        return (torch.stack(outputs, 1) * shares[..., None]).sum(1)


class Misa(Operator):
    def __init__(self):
        super().__init__()
        self.private = nn.ModuleList(nn.Linear(SIZES.width, SIZES.width) for _ in range(3))
        self.recon = nn.ModuleList(nn.Linear(SIZES.width, SIZES.width) for _ in range(3))
        self.shared = nn.Linear(SIZES.width, SIZES.width)
        self.transformer = Transformer(SIZES.width, 1, 2)
        self.fusion = nn.Linear(6 * SIZES.width, SIZES.width)

    def forward(self, parts):
        own = [torch.sigmoid(f(x)) * p[:, None] for (x, _, p), f in zip(parts, self.private)]
        shared = [torch.sigmoid(self.shared(x)) * p[:, None] for x, _, p in parts]
        mask = torch.stack([p for _, _, p in parts] * 2, 1) > 0
        x = self.transformer(torch.stack(own + shared, 1), mask) * mask[..., None]
        return self.fusion(x.flatten(1))


class TranslationPair(nn.Module):
    def __init__(self):
        super().__init__()
        self.there, self.back = nn.Linear(SIZES.width, SIZES.width), nn.Linear(SIZES.width, SIZES.width)


class Mctn(Operator):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(SIZES.width, SIZES.width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(SIZES.width, 2 * SIZES.width), "fc2": nn.Linear(2 * SIZES.width, SIZES.width)})
        self.others = nn.ModuleList(TranslationPair() for _ in range(2))

    def forward(self, parts):
        x = F.gelu(self.encoder(parts[2][0]))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](x)))
