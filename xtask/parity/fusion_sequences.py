"""Reference fusion operators that read a sequence of each modality."""

import math

import torch
import torch.nn.functional as F
from fusion_layers import SIZES, Attention, Block, Operator, Transformer, add_positions, apply_dropout, mean
from torch import nn


class TransformerFusion(Operator):
    sequences = True

    def __init__(self):
        super().__init__()
        self.encoder = Transformer(SIZES.width, 2, 4)
        self.modality_embedding = nn.Parameter(torch.zeros(3, SIZES.width))
        self.class_token = nn.Parameter(torch.zeros(SIZES.width))

    def forward(self, parts):
        x = [self.class_token.expand(SIZES.rows, 1, SIZES.width)] + [add_positions(x) + e for (x, _, _), e in zip(parts, self.modality_embedding)]
        mask = torch.cat([torch.ones(SIZES.rows, 1, dtype=torch.bool)] + [m for _, m, _ in parts], 1)
        return self.encoder(torch.cat(x, 1), mask)[:, 0]


class CrossPair(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm = Attention(SIZES.width, 4), nn.LayerNorm(SIZES.width)


class CrossAttention(Operator):
    sequences = True

    def __init__(self):
        super().__init__()
        self.pairs = nn.ModuleDict({f"{a}_{b}": CrossPair() for a in range(3) for b in range(3) if a != b})
        self.out_proj = nn.Linear(6 * SIZES.width, SIZES.width)

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
        self.affinity, self.a, self.b = nn.Linear(SIZES.width, SIZES.width, False), nn.Linear(SIZES.width, 5, False), nn.Linear(SIZES.width, 5, False)
        self.score_a, self.score_b = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(5))


class CoAttention(Operator):
    sequences = True

    def __init__(self):
        super().__init__()
        self.pairs = nn.ModuleDict({f"{a}_{b}": CoPair() for a in range(3) for b in range(a + 1, 3)})
        self.out_proj = nn.Linear(6 * SIZES.width, SIZES.width)

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
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(SIZES.width), nn.LayerNorm(SIZES.width)
        self.cross_attn = Attention(SIZES.width, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(SIZES.width, 4 * SIZES.width), "fc2": nn.Linear(4 * SIZES.width, SIZES.width)})

    def forward(self, x, source, mask):
        x = x + apply_dropout(self, self.cross_attn(self.layer_norm1(x), self.layer_norm1(source), mask))
        return x + apply_dropout(self, self.mlp["fc2"](F.relu(self.mlp["fc1"](self.layer_norm2(x)))))


class CrossmodalTransformer(nn.Module):
    def __init__(self, layers, heads):
        super().__init__()
        self.layers = nn.ModuleList(CrossBlock(heads) for _ in range(layers))
        self.norm = nn.LayerNorm(SIZES.width)

    def forward(self, x, source, mask):
        for layer in self.layers:
            x = layer(x, source, mask)
        return self.norm(x)


class Mult(Operator):
    sequences = True

    def __init__(self, layers=1, heads=2):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(SIZES.width, SIZES.width, 3, padding=1, bias=False) for _ in range(3))
        self.crossmodal = nn.ModuleDict({f"{a}_from_{b}": CrossmodalTransformer(layers, heads) for a in range(3) for b in range(3) if a != b})
        self.memory = nn.ModuleList(Transformer(2 * SIZES.width, layers, heads) for _ in range(3))
        self.fc1, self.fc2, self.out_proj = nn.Linear(6 * SIZES.width, 6 * SIZES.width), nn.Linear(6 * SIZES.width, 6 * SIZES.width), nn.Linear(6 * SIZES.width, SIZES.width)

    def forward(self, parts):
        x = [add_positions(c(x.transpose(1, 2)).transpose(1, 2) * math.sqrt(SIZES.width)) * m[..., None] for (x, m, _), c in zip(parts, self.convolutions)]
        out = []
        for a in range(3):
            got = [self.crossmodal[f"{a}_from_{b}"](x[a], x[b], parts[b][1]) * parts[b][2][:, None, None] for b in range(3) if a != b]
            h = self.memory[a](torch.cat(got, 2), parts[a][1])
            last = (parts[a][1].sum(1) - 1).clamp(min=0)
            out.append(h[torch.arange(SIZES.rows), last] * parts[a][2][:, None])
        z = torch.cat(out, 1)
        return self.out_proj(z + self.fc2(F.relu(self.fc1(z))))


class Bottleneck(Operator):
    sequences = True

    def __init__(self, tokens=2):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList(Block(SIZES.width, 4) for _ in range(3)) for _ in range(2))
        self.class_tokens = nn.Parameter(torch.zeros(3, SIZES.width))
        self.bottleneck = nn.Parameter(torch.zeros(tokens, SIZES.width))
        self.tokens = tokens
        self.out_proj = nn.Linear(SIZES.width, SIZES.width)

    def forward(self, parts):
        shared = self.bottleneck.expand(SIZES.rows, self.tokens, SIZES.width)
        own = [torch.cat([c.expand(SIZES.rows, 1, SIZES.width), add_positions(x)], 1) for (x, _, _), c in zip(parts, self.class_tokens)]
        always = torch.ones(SIZES.rows, self.tokens, dtype=torch.bool)
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


class PerceiverLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.cross_attn, self.block = nn.LayerNorm(SIZES.width), Attention(SIZES.width, 4), Block(SIZES.width, 4)


class Perceiver(Operator):
    sequences = True

    def __init__(self):
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(3, SIZES.width))
        self.modality_embedding = nn.Parameter(torch.zeros(3, SIZES.width))
        self.layers = nn.ModuleList(PerceiverLayer() for _ in range(2))
        self.context_norm, self.out_proj = nn.LayerNorm(SIZES.width), nn.Linear(SIZES.width, SIZES.width)

    def forward(self, parts):
        context = self.context_norm(torch.cat([add_positions(x) + e for (x, _, _), e in zip(parts, self.modality_embedding)], 1))
        mask = torch.cat([m for _, m, _ in parts], 1)
        x = self.latents.expand(SIZES.rows, 3, SIZES.width)
        for layer in self.layers:
            x = layer.block(x + layer.cross_attn(layer.norm(x), context, mask), None)
        return self.out_proj(x.mean(1))


class NonLocal(Operator):
    sequences = True

    def __init__(self):
        super().__init__()
        half = SIZES.width // 2
        self.theta, self.phi, self.g = (nn.Linear(SIZES.width, half) for _ in range(3))
        self.w, self.out_proj = nn.Linear(half, SIZES.width), nn.Linear(SIZES.width, SIZES.width)

    def forward(self, parts):
        x, m, _ = parts[2]
        all_ = torch.cat([x for x, _, _ in parts], 1)
        mask = torch.cat([m for _, m, _ in parts], 1)
        scores = (self.theta(x) @ self.phi(all_).transpose(1, 2)).masked_fill(~mask[:, None], -torch.inf).softmax(2)
        return self.out_proj(mean(x + self.w(scores @ self.g(all_)), m))


class TwoLayers(nn.Module):
    def __init__(self, a, b, c):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(a, b), nn.Linear(b, c)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))


class MemoryFusion(Operator):
    sequences = True
    length = 5

    def __init__(self):
        super().__init__()
        self.lstm = nn.ModuleList(nn.LSTMCell(SIZES.width, 4) for _ in range(3))
        self.attention, self.proposal = TwoLayers(24, 6, 24), TwoLayers(24, 6, 6)
        self.gamma1, self.gamma2 = TwoLayers(30, 6, 6), TwoLayers(30, 6, 6)
        self.out_proj = nn.Linear(18, SIZES.width)

    def forward(self, parts):
        state = [(torch.zeros(SIZES.rows, 4), torch.zeros(SIZES.rows, 4)) for _ in range(3)]
        memory = torch.zeros(SIZES.rows, 6)
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
