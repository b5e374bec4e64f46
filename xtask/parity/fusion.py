"""Outputs of every fusion operator, implemented here from its paper with PyTorch's layers, with which mm-fusion is compared.

    python fusion.py OUT.safetensors [--seed N]

Packages: torch safetensors numpy

For each operator: its weights under mm's names (KIND/w/NAME), the fused features (KIND/y), and the gradients of the sum of their squares
with respect to the inputs (KIND/g0 …). Inputs are shared: x0 (audio), x1 (image), x2 (text, the main modality), each [rows, length, width]
with masks m0 …; the second row has no image, the third no audio.
"""

import argparse
import math

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

ROWS, WIDTH, LENGTHS = 4, 8, (5, 4, 6)
DROPOUT = 0.0  # benches/training.py sets another value
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]], dtype=torch.float32)


def sinusoidal(length, width):
    half = width // 2
    positions = torch.arange(length, dtype=torch.float64)[:, None]
    steps = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float64) / max(half - 1, 1))
    return torch.cat([torch.sin(positions * steps), torch.cos(positions * steps)], 1).float()


def add_positions(x):
    return x + sinusoidal(x.shape[1], x.shape[2])


class Operator(nn.Module):
    """`parts`: (values, mask, present) of each modality; vectors for operators that pool."""

    sequences = False

    def concat(self, parts):
        return torch.cat([t for x, _, p in parts for t in (x, p[:, None])], 1)


class Concat(Operator):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3 * WIDTH + 3, 6), nn.Linear(6, WIDTH)

    def forward(self, parts):
        return self.fc2(F.relu(self.fc1(self.concat(parts))))


class Stack(Operator):
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(3, WIDTH))
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, parts):
        x = torch.stack([x for x, _, _ in parts], 1)
        there = torch.stack([p for _, _, p in parts], 1)[..., None]
        scores = self.weights[None].expand_as(x).masked_fill(there == 0, -torch.inf)
        return self.out_proj((x * scores.softmax(1)).sum(1))


class Gated(Operator):
    def __init__(self):
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.gates = nn.ModuleList(nn.Linear(3 * WIDTH + 3, WIDTH) for _ in range(3))

    def forward(self, parts):
        z = self.concat(parts)
        terms = [torch.sigmoid(g(z)) * p[:, None] * torch.tanh(h(x)) for (x, _, p), h, g in zip(parts, self.hidden, self.gates)]
        return sum(terms)


class Interaction(nn.Module):
    def __init__(self, left):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(left, WIDTH, WIDTH))
        self.left, self.right = nn.Linear(left, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH)

    def forward(self, x, y):
        return torch.einsum("ni,ijo,nj->no", x, self.weight, y) + self.left(x) + self.right(y)


class Multiplicative(Operator):
    def __init__(self):
        super().__init__()
        self.interactions = nn.ModuleList(Interaction(WIDTH) for _ in range(2))
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, parts):
        x = self.interactions[0](parts[0][0], parts[1][0])
        return self.out_proj(self.interactions[1](x, parts[2][0]))


class TensorFusion(Operator):
    def __init__(self, part=3, hidden=10):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(WIDTH, part) for _ in range(3))
        self.fc1, self.fc2 = nn.Linear((part + 1) ** 3, hidden), nn.Linear(hidden, WIDTH)

    def forward(self, parts):
        one = torch.ones(ROWS, 1)
        a, b, c = (torch.cat([one, F.relu(f(x)) * p[:, None]], 1) for (x, _, p), f in zip(parts, self.parts))
        product = torch.einsum("ni,nj,nk->nijk", a, b, c).flatten(1)
        return self.fc2(F.relu(self.fc1(product)))


class LowRank(Operator):
    def __init__(self, rank=4):
        super().__init__()
        self.factors = nn.ParameterList(torch.zeros(rank, WIDTH + 1, WIDTH) for _ in range(3))
        self.fusion_weights = nn.Parameter(torch.zeros(rank))
        self.fusion_bias = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, parts):
        one = torch.ones(ROWS, 1)
        product = 1
        for (x, _, _), factor in zip(parts, self.factors):
            product = product * torch.matmul(torch.cat([x, one], 1), factor)
        return (self.fusion_weights[:, None, None] * product).sum(0) + self.fusion_bias


class Bilinear(Operator):
    def __init__(self, times, kind):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(WIDTH, WIDTH * times) for _ in range(3))
        self.out_proj = nn.Linear(WIDTH, WIDTH)
        self.times, self.kind = times, kind

    def forward(self, parts):
        product = 1
        for (x, _, p), layer in zip(parts, self.parts):
            y = layer(x) if self.kind == "mfb" else torch.tanh(layer(x))
            product = product * torch.where(p[:, None] > 0, y, torch.ones_like(y))
        if self.kind == "mfb":
            z = product.view(ROWS, WIDTH, self.times).sum(2)
            z = torch.sign(z) * torch.sqrt(z.abs() + 1e-6)
            product = F.normalize(z, dim=1) * math.sqrt(WIDTH)
        if self.kind == "mutan":
            product = torch.tanh(product.view(ROWS, self.times, WIDTH).sum(1))
        return self.out_proj(product)


class FilmBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.film, self.fc, self.norm = nn.Linear(2 * WIDTH + 2, 2 * WIDTH), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)


class Film(Operator):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(FilmBlock() for _ in range(2))

    def forward(self, parts):
        condition = self.concat(parts[:2])
        x = self.fc(parts[2][0])
        for block in self.blocks:
            gamma, beta = block.film(condition).chunk(2, 1)
            x = x + F.relu((1 + gamma) * block.norm(block.fc(x)) + beta)
        return x


class Excitation(Operator):
    def __init__(self):
        super().__init__()
        self.squeeze = nn.Linear(3 * WIDTH + 3, 3 * WIDTH // 4)
        self.excite = nn.ModuleList(nn.Linear(3 * WIDTH // 4, WIDTH) for _ in range(3))
        self.out_proj = nn.Linear(3 * WIDTH, WIDTH)

    def forward(self, parts):
        z = F.relu(self.squeeze(self.concat(parts)))
        return self.out_proj(torch.cat([x * 2 * torch.sigmoid(e(z)) for (x, _, _), e in zip(parts, self.excite)], 1))


class Shift(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.shift = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)


class Adaptation(Operator):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH)
        self.others = nn.ModuleList(Shift() for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)

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
        self.fc = nn.Linear(width, WIDTH)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, WIDTH), "fc2": nn.Linear(WIDTH, WIDTH)})

    def forward(self, x):
        x = self.fc(x)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](F.gelu(x))))


class Experts(Operator):
    def __init__(self):
        super().__init__()
        wide = 3 * WIDTH + 3
        self.experts = nn.ModuleDict({"0": Expert(WIDTH), "1": Expert(WIDTH), "2": Expert(WIDTH), "all": Expert(wide)})
        self.router = nn.Linear(wide, 4)

    def forward(self, parts):
        z = self.concat(parts)
        there = torch.cat([torch.stack([p for _, _, p in parts], 1), torch.ones(ROWS, 1)], 1)
        shares = self.router(z).masked_fill(there == 0, -torch.inf).softmax(1)
        outputs = [self.experts[str(n)](x) for n, (x, _, _) in enumerate(parts)] + [self.experts["all"](z)]
        return (torch.stack(outputs, 1) * shares[..., None]).sum(1)


def apply_dropout(module, x):
    return F.dropout(x, DROPOUT, module.training) if DROPOUT else x


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
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=DROPOUT if self.training else 0.0)
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


class Invariant(Operator):
    def __init__(self):
        super().__init__()
        self.private = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.recon = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.shared = nn.Linear(WIDTH, WIDTH)
        self.transformer = Transformer(WIDTH, 1, 2)
        self.fusion = nn.Linear(6 * WIDTH, WIDTH)

    def forward(self, parts):
        own = [torch.sigmoid(f(x)) * p[:, None] for (x, _, p), f in zip(parts, self.private)]
        shared = [torch.sigmoid(self.shared(x)) * p[:, None] for x, _, p in parts]
        mask = torch.stack([p for _, _, p in parts] * 2, 1) > 0
        x = self.transformer(torch.stack(own + shared, 1), mask) * mask[..., None]
        return self.fusion(x.flatten(1))


class There(nn.Module):
    def __init__(self):
        super().__init__()
        self.there, self.back = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)


class Translation(Operator):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, 2 * WIDTH), "fc2": nn.Linear(2 * WIDTH, WIDTH)})
        self.others = nn.ModuleList(There() for _ in range(2))

    def forward(self, parts):
        x = F.gelu(self.encoder(parts[2][0]))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](x)))


def mean(x, mask):
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1e-9)


class Sequence(Operator):
    sequences = True

    def __init__(self):
        super().__init__()
        self.encoder = Transformer(WIDTH, 2, 4)
        self.modality_embedding = nn.Parameter(torch.zeros(3, WIDTH))
        self.class_token = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, parts):
        x = [self.class_token.expand(ROWS, 1, WIDTH)] + [add_positions(x) + e for (x, _, _), e in zip(parts, self.modality_embedding)]
        mask = torch.cat([torch.ones(ROWS, 1, dtype=torch.bool)] + [m for _, m, _ in parts], 1)
        return self.encoder(torch.cat(x, 1), mask)[:, 0]


class CrossPair(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm = Attention(WIDTH, 4), nn.LayerNorm(WIDTH)


class Cross(Operator):
    sequences = True

    def __init__(self):
        super().__init__()
        self.pairs = nn.ModuleDict({f"{a}_{b}": CrossPair() for a in range(3) for b in range(3) if a != b})
        self.out_proj = nn.Linear(6 * WIDTH, WIDTH)

    def forward(self, parts):
        out = []
        for name, pair in self.pairs.items():
            (x, m, _), (y, n, p) = (parts[int(i)] for i in name.split("_"))
            seen = pair.attention(add_positions(x), add_positions(y), n) * p[:, None, None]
            out.append(mean(pair.norm(x + seen), m))
        return self.out_proj(torch.cat(out, 1))


class CoPair(nn.Module):
    def __init__(self):
        super().__init__()
        self.affinity, self.a, self.b = nn.Linear(WIDTH, WIDTH, False), nn.Linear(WIDTH, 5, False), nn.Linear(WIDTH, 5, False)
        self.score_a, self.score_b = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(5))


class CoAttention(Operator):
    sequences = True

    def __init__(self):
        super().__init__()
        self.pairs = nn.ModuleDict({f"{a}_{b}": CoPair() for a in range(3) for b in range(a + 1, 3)})
        self.out_proj = nn.Linear(6 * WIDTH, WIDTH)

    def forward(self, parts):
        out = []
        for name, pair in self.pairs.items():
            (v, m, p), (q, n, r) = (parts[int(i)] for i in name.split("_"))
            affinity = torch.tanh(pair.affinity(v) @ q.transpose(1, 2))
            wv, wq = pair.a(v), pair.b(q)
            hv, hq = torch.tanh(wv + affinity @ wq), torch.tanh(wq + affinity.transpose(1, 2) @ wv)
            for h, w, x, mask, there in ((hv, pair.score_a, v, m, p), (hq, pair.score_b, q, n, r)):
                scores = (h @ w).masked_fill(~mask, torch.finfo(torch.float32).min).softmax(1)
                out.append((scores[..., None] * x).sum(1) * there[:, None])
        return self.out_proj(torch.cat(out, 1))


class CrossBlock(nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.cross_attn = Attention(WIDTH, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, 4 * WIDTH), "fc2": nn.Linear(4 * WIDTH, WIDTH)})

    def forward(self, x, source, mask):
        x = x + apply_dropout(self, self.cross_attn(self.layer_norm1(x), self.layer_norm1(source), mask))
        return x + apply_dropout(self, self.mlp["fc2"](F.relu(self.mlp["fc1"](self.layer_norm2(x)))))


class Crossmodal(nn.Module):
    def __init__(self, layers, heads):
        super().__init__()
        self.layers = nn.ModuleList(CrossBlock(heads) for _ in range(layers))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x, source, mask):
        for layer in self.layers:
            x = layer(x, source, mask)
        return self.norm(x)


class Mult(Operator):
    sequences = True

    def __init__(self, layers=1, heads=2):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, padding=1, bias=False) for _ in range(3))
        self.crossmodal = nn.ModuleDict({f"{a}_from_{b}": Crossmodal(layers, heads) for a in range(3) for b in range(3) if a != b})
        self.memory = nn.ModuleList(Transformer(2 * WIDTH, layers, heads) for _ in range(3))
        self.fc1, self.fc2, self.out_proj = nn.Linear(6 * WIDTH, 6 * WIDTH), nn.Linear(6 * WIDTH, 6 * WIDTH), nn.Linear(6 * WIDTH, WIDTH)

    def forward(self, parts):
        x = [add_positions(c(x.transpose(1, 2)).transpose(1, 2) * math.sqrt(WIDTH)) * m[..., None] for (x, m, _), c in zip(parts, self.convolutions)]
        out = []
        for a in range(3):
            got = [self.crossmodal[f"{a}_from_{b}"](x[a], x[b], parts[b][1]) * parts[b][2][:, None, None] for b in range(3) if a != b]
            h = self.memory[a](torch.cat(got, 2), parts[a][1])
            last = (parts[a][1].sum(1) - 1).clamp(min=0)
            out.append(h[torch.arange(ROWS), last] * parts[a][2][:, None])
        z = torch.cat(out, 1)
        return self.out_proj(z + self.fc2(F.relu(self.fc1(z))))


class Bottleneck(Operator):
    sequences = True

    def __init__(self, tokens=2):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList(Block(WIDTH, 4) for _ in range(3)) for _ in range(2))
        self.class_tokens = nn.Parameter(torch.zeros(3, WIDTH))
        self.bottleneck = nn.Parameter(torch.zeros(tokens, WIDTH))
        self.tokens = tokens
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, parts):
        shared = self.bottleneck.expand(ROWS, self.tokens, WIDTH)
        own = [torch.cat([c.expand(ROWS, 1, WIDTH), add_positions(x)], 1) for (x, _, _), c in zip(parts, self.class_tokens)]
        always = torch.ones(ROWS, self.tokens, dtype=torch.bool)
        masks = [torch.cat([p[:, None] > 0, m, always], 1) for _, m, p in parts]
        there = torch.stack([p for _, _, p in parts], 1)
        for layer in self.layers:
            bottlenecks = []
            for n in range(3):
                y = layer[n](torch.cat([own[n], shared], 1), masks[n])
                own[n], tokens = y[:, : -self.tokens], y[:, -self.tokens :]
                bottlenecks.append(tokens * there[:, n, None, None])
            shared = sum(bottlenecks) / there.sum(1)[:, None, None]
        return self.out_proj(sum(x[:, 0] * there[:, n, None] for n, x in enumerate(own)) / there.sum(1, keepdim=True))


class Round(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.cross_attn, self.block = nn.LayerNorm(WIDTH), Attention(WIDTH, 4), Block(WIDTH, 4)


class Perceiver(Operator):
    sequences = True

    def __init__(self):
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(3, WIDTH))
        self.modality_embedding = nn.Parameter(torch.zeros(3, WIDTH))
        self.layers = nn.ModuleList(Round() for _ in range(2))
        self.context_norm, self.out_proj = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, parts):
        context = self.context_norm(torch.cat([add_positions(x) + e for (x, _, _), e in zip(parts, self.modality_embedding)], 1))
        mask = torch.cat([m for _, m, _ in parts], 1)
        x = self.latents.expand(ROWS, 3, WIDTH)
        for layer in self.layers:
            x = layer.block(x + layer.cross_attn(layer.norm(x), context, mask), None)
        return self.out_proj(x.mean(1))


class NonLocal(Operator):
    sequences = True

    def __init__(self):
        super().__init__()
        half = WIDTH // 2
        self.theta, self.phi, self.g = (nn.Linear(WIDTH, half) for _ in range(3))
        self.w, self.out_proj = nn.Linear(half, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, parts):
        x, m, _ = parts[2]
        all_ = torch.cat([x for x, _, _ in parts], 1)
        mask = torch.cat([m for _, m, _ in parts], 1)
        scores = (self.theta(x) @ self.phi(all_).transpose(1, 2)).masked_fill(~mask[:, None], -torch.inf).softmax(2)
        return self.out_proj(mean(x + self.w(scores @ self.g(all_)), m))


class Two(nn.Module):
    def __init__(self, a, b, c):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(a, b), nn.Linear(b, c)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))


class Memory(Operator):
    sequences = True
    length = 5

    def __init__(self):
        super().__init__()
        self.lstm = nn.ModuleList(nn.LSTMCell(WIDTH, 4) for _ in range(3))
        self.attention, self.proposal = Two(24, 6, 24), Two(24, 6, 6)
        self.gamma1, self.gamma2 = Two(30, 6, 6), Two(30, 6, 6)
        self.out_proj = nn.Linear(18, WIDTH)

    def forward(self, parts):
        state = [(torch.zeros(ROWS, 4), torch.zeros(ROWS, 4)) for _ in range(3)]
        memory = torch.zeros(ROWS, 6)
        somewhere = parts[0][1] | parts[1][1] | parts[2][1]
        for t in range(self.length):
            before = [c for _, c in state]
            for n, (x, m, _) in enumerate(parts):
                h, c = self.lstm[n](x[:, t], state[n])
                on = m[:, t, None]
                state[n] = (torch.where(on, h, state[n][0]), torch.where(on, c, state[n][1]))
            change = torch.cat(before + [c for _, c in state], 1)
            attended = self.attention(change).softmax(1) * change
            both = torch.cat([attended, memory], 1)
            new = torch.sigmoid(self.gamma1(both)) * memory + torch.sigmoid(self.gamma2(both)) * torch.tanh(self.proposal(attended))
            memory = torch.where(somewhere[:, t, None], new, memory)
        return self.out_proj(torch.cat([h for h, _ in state] + [memory], 1))


OPERATORS = {
    "concat": (Concat, {"hidden_dim": 6}), "weighted_sum": (Stack, {}), "gated": (Gated, {}), "multiplicative": (Multiplicative, {}),
    "tensor_fusion": (TensorFusion, {"modality_dim": 3, "hidden_dim": 10}), "low_rank_fusion": (LowRank, {"rank": 4}), "mlb": (lambda: Bilinear(1, "mlb"), {}),
    "mfb": (lambda: Bilinear(3, "mfb"), {"num_factors": 3}), "mutan": (lambda: Bilinear(3, "mutan"), {"rank": 3}), "film": (Film, {}),
    "mmtm": (Excitation, {}), "mag": (Adaptation, {}), "misa": (Invariant, {}), "mixture_of_experts": (Experts, {}), "mctn": (Translation, {}),
    "transformer": (Sequence, {}), "cross_attention": (Cross, {}), "co_attention": (CoAttention, {"hidden_dim": 5}),
    "mult": (Mult, {"num_layers": 1, "num_heads": 2, "dropout": 0.0}), "bottleneck": (Bottleneck, {"num_tokens": 2}), "perceiver": (Perceiver, {"num_latents": 3}),
    "non_local": (NonLocal, {}), "mfn": (Memory, {"hidden_dim": 4, "memory_dim": 6}),
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
        counts = torch.randint(1, length + 1, (ROWS,))
        counts[0] = length
        masks.append(torch.arange(length)[None] < counts[:, None])
        inputs.append(torch.randn(ROWS, length, WIDTH))
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
