#!/usr/bin/env python3
"""Training steps per second of mm and of PyTorch eager: the same networks at the same sizes, alternating, two threads each. A step is
the forward and backward pass, clipping and AdamW. PyTorch's networks use its usual modules (nn.LSTM,
scaled_dot_product_attention, nn.utils.parametrizations.spectral_norm); its AdamW runs with the default and with fused=True.

    cargo xtask bench training [--quick] [--only TEXT]      (TEXT: part of a title, for instance vae, mult, film)
    cargo xtask bench training --ranks 2 [--only TEXT]      one process with two threads, and two with one each (DistributedDataParallel): vae, mae

Each value is the median of three rounds. Ratios are mm's over the better of PyTorch's two.
"""
import itertools, math, os, socket, statistics, subprocess, sys, time, warnings
from pathlib import Path
warnings.filterwarnings("ignore")
import torch, torch.nn.functional as F
from torch import nn
torch.set_num_threads(2); torch.manual_seed(0)
MM = Path(sys.argv[1])
ROUNDS = 1 if "--quick" in sys.argv else 3
ONLY = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
MOSI, BATCH = (73, 100, 100), 32

# ---- representation learning ----------------------------------------------------------------------------------------------------------
def stage(a, b, stride): return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), nn.GroupNorm(8, b), nn.SiLU())
def layer(a, b): return nn.Sequential(nn.Linear(a, b), nn.LayerNorm(b), nn.GELU())
class ImageEncoder(nn.Module):
    def __init__(self, side, channels, hidden, out):
        super().__init__(); n = side >> len(channels); flat = [3, *channels][-1] * n * n
        self.net = nn.Sequential(*[stage(a, b, 2) for a, b in zip([3, *channels], channels)], nn.Flatten(),
                                 *[layer(a, b) for a, b in zip([flat, *hidden], hidden)], nn.Linear(hidden[-1], out))
    def forward(self, x): return self.net(x)
class ImageDecoder(nn.Module):
    def __init__(self, side, channels, hidden, code):
        super().__init__(); c = channels[::-1]; self.grid = ([*c, 3][0], side >> len(c), side >> len(c))
        widths = [code, *hidden[::-1]]
        self.layers = nn.Sequential(*[layer(a, b) for a, b in zip(widths, widths[1:])], nn.Linear(widths[-1], math.prod(self.grid)))
        self.stages = nn.Sequential(*[nn.Sequential(nn.Upsample(scale_factor=2), stage(a, b, 1)) for a, b in zip(c, [*c[1:], c[-1]])], nn.Conv2d(c[-1], 3, 3, 1, 1)) if c else nn.Identity()
    def forward(self, z): return torch.sigmoid(self.stages(self.layers(z).view(-1, *self.grid)))
class Vae(nn.Module):
    def __init__(self, x, channels, hidden, width):
        super().__init__(); side = x.shape[-1]
        self.down, self.up, self.log_scale, self.x = ImageEncoder(side, channels, hidden, 2 * width), ImageDecoder(side, channels, hidden, width), nn.Parameter(torch.full((1,), -1.0)), x
    def forward(self):
        mean, logvar = self.down(self.x).chunk(2, 1); logvar = logvar.clamp(-10, 10)
        y, s = self.up(mean + (logvar * 0.5).exp() * torch.randn_like(mean)), self.log_scale.clamp(-4, 4)
        nll = (0.5 * ((y - self.x) * (-s).exp()) ** 2 + s + 0.9189385).flatten(1).sum(1).mean()
        return (nll + 0.5 * (mean**2 + logvar.exp() - logvar - 1).sum(1).mean()) / self.x[0].numel()
class Block(nn.Module):
    def __init__(self, w, heads, context=False, dropout=0.0):
        super().__init__(); self.heads, self.p = heads, dropout
        self.norm1, self.qkv, self.proj, self.norm2 = nn.LayerNorm(w), nn.Linear(w, 3 * w), nn.Linear(w, w), nn.LayerNorm(w)
        self.fc1, self.fc2 = nn.Linear(w, 4 * w), nn.Linear(4 * w, w)
        if context: self.norm_c, self.q, self.kv, self.proj_c = nn.LayerNorm(w), nn.Linear(w, w), nn.Linear(w, 2 * w), nn.Linear(w, w)
    def attend(self, q, k, v, mask):
        split = lambda t: t.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return F.scaled_dot_product_attention(split(q), split(k), split(v), None if mask is None else mask[:, None, None], self.p if self.training else 0.0).transpose(1, 2).flatten(2)
    def forward(self, x, mask=None, context=None, context_mask=None):
        drop = lambda t: F.dropout(t, self.p, self.training) if self.p else t
        x = x + drop(self.proj(self.attend(*self.qkv(self.norm1(x)).chunk(3, 2), mask)))
        if context is not None: x = x + drop(self.proj_c(self.attend(self.q(self.norm_c(x)), *self.kv(context).chunk(2, 2), context_mask)))
        return x + drop(self.fc2(F.gelu(self.fc1(self.norm2(x)))))
class Mae(nn.Module):
    def __init__(self, x, w, layers, heads, dw, dlayers, patch=4):
        super().__init__(); self.x, self.patch = x, patch; n = (x.shape[-1] // patch) ** 2; p = 3 * patch * patch; self.keep = n - round(0.75 * n)
        par = lambda *s: nn.Parameter(torch.randn(*s) * 0.02)
        self.embed, self.pos, self.mask, self.dpos = nn.Linear(p, w), par(1, n, w), par(1, 1, dw), par(1, n, dw)
        self.enc, self.norm = nn.Sequential(*[Block(w, heads) for _ in range(layers)]), nn.LayerNorm(w)
        self.narrow, self.dec, self.dnorm, self.pred = nn.Linear(w, dw), nn.Sequential(*[Block(dw, heads) for _ in range(dlayers)]), nn.LayerNorm(dw), nn.Linear(dw, p)
    def forward(self):
        x = F.unfold(self.x, self.patch, stride=self.patch).transpose(1, 2); b, n, _ = x.shape
        order = torch.rand(b, n).argsort(1); back = order.argsort(1)
        y = self.embed(x) + self.pos
        y = y.gather(1, order[:, : self.keep, None].expand(-1, -1, y.shape[2]))
        y = self.narrow(self.norm(self.enc(y)))
        y = torch.cat([y, self.mask.expand(b, n - self.keep, -1)], 1).gather(1, back[..., None].expand(-1, -1, y.shape[2])) + self.dpos
        hidden = (back >= self.keep).float()
        return (((self.pred(self.dnorm(self.dec(y))) - x) ** 2).mean(2) * hidden).sum() / hidden.sum()
class Gan(nn.Module):
    """Both steps of one batch; the generator and the discriminator each have an optimizer."""
    def __init__(self, x, channels):
        super().__init__(); self.x = x; sn = nn.utils.parametrizations.spectral_norm; side = x.shape[-1] >> len(channels)
        self.up = ImageDecoder(x.shape[-1], channels, [], 64)
        self.critic = nn.Sequential(*[m for a, b in zip([3, *channels], channels) for m in (sn(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2))],
            nn.Flatten(), sn(nn.Linear(channels[-1] * side * side, 128)), nn.LeakyReLU(0.2), sn(nn.Linear(128, 1)))
    def step(self, optimizers):
        fake = self.up(torch.randn(len(self.x), 64))
        optimizers[1].zero_grad()
        loss = F.softplus(-self.critic(self.x)).mean() + F.softplus(self.critic(fake.detach())).mean()
        loss.backward(); assert math.isfinite(loss.item())
        nn.utils.clip_grad_norm_(self.critic.parameters(), 1.0); optimizers[1].step()
        for p in self.critic.parameters(): p.requires_grad_(False)
        optimizers[0].zero_grad(); loss = F.softplus(-self.critic(fake)).mean(); loss.backward(); assert math.isfinite(loss.item())
        nn.utils.clip_grad_norm_(self.up.parameters(), 1.0); optimizers[0].step()
        for p in self.critic.parameters(): p.requires_grad_(True)

# ---- fusion on CMU-MOSI's sizes ---------------------------------------------------------------------------------------------
sys.path.insert(0, str(Path(__file__).parents[1] / "xtask/parity"))
import fusion_sequences, fusion_vectors
from fusion_layers import SIZES
SIZES.width, SIZES.dropout = 64, 0.1
def gelu_projection(w): return nn.Sequential(nn.Linear(w, 64), nn.LayerNorm(64), nn.GELU())
class Fused(nn.Module):
    def __init__(self, operator, length):
        super().__init__(); SIZES.rows = BATCH
        # Batches alternate: a single one would be overfitted, and denormal gradients, which are slow, measured.
        self.x = itertools.cycle([[torch.randn(BATCH, length, w) for w in MOSI] for _ in range(64)]); self.y = torch.arange(BATCH) % 2
        self.project, self.operator, self.head = nn.ModuleList(map(gelu_projection, MOSI)), operator(), nn.Linear(64, 2)
        self.mask, self.present = torch.ones(BATCH, length, dtype=torch.bool), torch.ones(BATCH)
    def forward(self):
        batch = next(self.x)
        if self.operator.sequences: parts = [(p(x), self.mask, self.present) for x, p in zip(batch, self.project)]
        else: parts = [(p(x.mean(1)), None, self.present) for x, p in zip(batch, self.project)]
        return F.cross_entropy(self.head(self.operator(parts)), self.y)
class Contextual(nn.Module):
    def __init__(self, videos=BATCH, utterances=24):
        super().__init__(); SIZES.rows = videos * utterances
        self.x = [torch.randn(videos, utterances, w) for w in MOSI]; self.y = torch.arange(videos * utterances) % 2
        self.lstm = nn.ModuleList(nn.LSTM(w, 64, bidirectional=True, batch_first=True) for w in MOSI)
        self.project, self.operator, self.head = nn.ModuleList(gelu_projection(128) for _ in MOSI), fusion_vectors.Gated(), nn.Linear(64, 2)
        self.present = torch.ones(videos * utterances)
    def forward(self):
        parts = [(p(l(x)[0].flatten(0, 1)), None, self.present) for x, l, p in zip(self.x, self.lstm, self.project)]
        return F.cross_entropy(self.head(self.operator(parts)), self.y)

# ---- reasoning at easy-VQA's size -------------------------------------------------------------------------------------------
class Stage(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.c1, self.n1, self.c2, self.n2 = nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
    def forward(self, x): y = F.relu(self.n1(self.c1(x))); return F.relu(self.n2(self.c2(y)) + y)
class VisualQuestionAnswering(nn.Module):
    """`frozen_encoders`: only the reasoning network is trained, on features that are computed once."""
    def __init__(self, network, frozen_encoders=False, rows=128, num_words=8, width=96):
        super().__init__(); self.cached = None
        self.x, self.q, self.y = torch.randn(rows, 3, 64, 64), torch.randint(2, 30, (rows, num_words)), torch.arange(rows) % 13
        self.image_encoder = nn.Sequential(*[Stage(a, b) for a, b in zip((3, 16, 32), (16, 32, 48))])
        self.embedding, self.lstm = nn.Embedding(30, 48), nn.LSTM(48, width, batch_first=True)
        at = torch.linspace(-1, 1, 8); self.at = torch.stack(torch.meshgrid(at, at, indexing="ij"), -1).view(1, 64, 2).expand(rows, -1, -1)
        self.pq, self.pi = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.Dropout(0.1)), nn.Sequential(nn.Linear(50, width), nn.LayerNorm(width), nn.Dropout(0.1))
        self.network, self.head = network(width), nn.Linear(width, 13)
        if frozen_encoders: self.cached = [t.detach() for t in self.encoded()]; del self.image_encoder, self.embedding, self.lstm
    def encoded(self): return self.image_encoder(self.x).flatten(2).transpose(1, 2), self.lstm(self.embedding(self.q))[0]
    def forward(self):
        image, text = self.cached or self.encoded()
        image, text = self.pi(torch.cat([image, self.at], 2)), self.pq(text)
        return F.cross_entropy(self.head(self.network(image, text)), self.y)
class Stacked(nn.Module):
    def __init__(self, w):
        super().__init__(); self.steps = nn.ModuleList(nn.ModuleList([nn.Linear(w, w, bias=False), nn.Linear(w, w), nn.Linear(w, 1, bias=False)]) for _ in range(2))
    def forward(self, image, text):
        u = text[:, -1]
        for p, q, s in self.steps: u = u + (s(torch.tanh(p(image) + q(u)[:, None])).softmax(1) * image).sum(1)
        return u
class Film(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleList([nn.Conv2d(w, w, 1, bias=False), nn.Conv2d(w, w, 3, 1, 1, bias=False), nn.BatchNorm2d(w), nn.Linear(w, 2 * w)]) for _ in range(2)); self.out = nn.Linear(2 * w, w)
    def forward(self, image, text):
        x = image.transpose(1, 2).unflatten(2, (8, 8))
        for c1, c2, norm, film in self.blocks:
            gamma, beta = film(text[:, -1])[..., None, None].chunk(2, 1); y = F.relu(c1(x)); x = y + F.relu((1 + gamma) * norm(c2(y)) + beta)
        x = x.flatten(2); return self.out(torch.cat([x.amax(2), x.mean(2)], 1))
class Mcan(nn.Module):
    def __init__(self, w):
        super().__init__(); self.a, self.b = nn.ModuleList(Block(w, 4, dropout=0.1) for _ in range(2)), nn.ModuleList(Block(w, 4, True, 0.1) for _ in range(2))
        self.na, self.nb, self.norm = nn.LayerNorm(w), nn.LayerNorm(w), nn.LayerNorm(w); mlp = lambda: nn.Sequential(nn.Linear(w, w), nn.ReLU(), nn.Linear(w, 1))
        self.ra, self.rb, self.oa, self.ob = mlp(), mlp(), nn.Linear(w, w), nn.Linear(w, w)
    def forward(self, image, text):
        for b in self.a: text = b(text)
        text = self.na(text)
        for b in self.b: image = b(image, None, text)
        image = self.nb(image)
        return self.norm(self.oa((self.ra(text).softmax(1) * text).sum(1)) + self.ob((self.rb(image).softmax(1) * image).sum(1)))
class Relation(nn.Module):
    """As in the paper: four layers over each pair of image positions, concatenated with the question."""
    def __init__(self, w):
        super().__init__(); self.g = nn.Sequential(nn.Linear(3 * w, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU())
        self.norm, self.f = nn.LayerNorm(w), nn.Sequential(nn.Linear(w, w), nn.ReLU(), nn.Dropout(0.1), nn.Linear(w, w))
    def forward(self, image, text):
        b, n, w = image.shape
        pairs = torch.cat([image[:, :, None].expand(b, n, n, w), image[:, None].expand(b, n, n, w), text[:, -1, None, None].expand(b, n, n, w)], 3)
        return self.f(self.norm(self.g(pairs).sum((1, 2))))

SMALL, LARGE = torch.rand(BATCH, 3, 16, 16), torch.rand(64, 3, 64, 64)
LIST = {
    "dense_vae-small": (lambda: Vae(SMALL, [], [128], 32), 300), "vae-small": (lambda: Vae(SMALL, [16, 32], [128], 32), 150),
    "mae-small": (lambda: Mae(SMALL, 64, 2, 4, 32, 1), 150), "gan-small": (lambda: Gan(SMALL, [16, 32]), 100),
    "vae-large": (lambda: Vae(LARGE, [64, 128, 256], [512], 128), 3), "mae-large": (lambda: Mae(LARGE, 384, 6, 6, 192, 2), 4), "gan-large": (lambda: Gan(LARGE, [64, 128, 256]), 2),
    "contextual": (Contextual, 30), "gated": (lambda: Fused(fusion_vectors.Gated, 1), 200), "tensor_fusion": (lambda: Fused(lambda: fusion_vectors.TensorFusion(16, 128), 1), 60),
    "low_rank_fusion": (lambda: Fused(lambda: fusion_vectors.LowRank(8), 1), 200), "mag": (lambda: Fused(fusion_vectors.Mag, 1), 200), "mult": (lambda: Fused(lambda: fusion_sequences.Mult(2, 4), 50), 10),
    "bottleneck": (lambda: Fused(lambda: fusion_sequences.Bottleneck(4), 50), 15),
    "reason-san": (lambda: VisualQuestionAnswering(Stacked, True), 30), "reason-film": (lambda: VisualQuestionAnswering(Film, True), 20),
    "reason-mcan": (lambda: VisualQuestionAnswering(Mcan, True), 12), "reason-relation_network": (lambda: VisualQuestionAnswering(Relation, True), 2),
    "vqa-san": (lambda: VisualQuestionAnswering(Stacked), 10), "vqa-film": (lambda: VisualQuestionAnswering(Film), 10), "vqa-mcan": (lambda: VisualQuestionAnswering(Mcan), 8), "vqa-relation_network": (lambda: VisualQuestionAnswering(Relation), 2),
}  # fmt: skip

def torch_steps(make, steps, fused, parallel=None):
    torch.manual_seed(0); model = make().train()
    if parallel:
        rank, size = parallel; model.x = model.x[rank::size]; model = nn.parallel.DistributedDataParallel(model)
    adam = lambda m: torch.optim.AdamW(m.parameters(), 1e-3, fused=fused)
    if isinstance(model, Gan):
        optimizers = adam(model.up), adam(model.critic)
        def step(): model.step(optimizers)
    else:
        optimizer = adam(model)
        def step():
            optimizer.zero_grad(); loss = model(); assert math.isfinite(loss.item())
            loss.backward(); nn.utils.clip_grad_norm_(model.parameters(), 1.0); optimizer.step()
    for _ in range(3): step()
    begun = time.perf_counter()
    for _ in range(steps): step()
    return steps / (time.perf_counter() - begun)
def ours(name, steps): return float(subprocess.run([MM, name, str(steps)], check=True, capture_output=True, text=True).stdout)

def in_ranks(commands):
    """Starts one process for each command, which meet at a port; what the first prints."""
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    env = lambda rank: {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(commands)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen(command, env=env(rank), stdout=subprocess.PIPE, text=True) for rank, command in enumerate(commands)]
    out = [process.communicate()[0] for process in started]; assert all(process.returncode == 0 for process in started)
    return float(out[0].split()[-1])

if "--rank-of" in sys.argv:
    name, steps = sys.argv[sys.argv.index("--rank-of") + 1], int(sys.argv[sys.argv.index("--rank-of") + 2])
    torch.set_num_threads(1); torch.distributed.init_process_group("gloo"); rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    found = torch_steps(LIST[name][0], steps, True, (rank, size)); torch.distributed.destroy_process_group()
    print(found if rank == 0 else ""); sys.exit()
if "--ranks" in sys.argv:
    ranks = int(sys.argv[sys.argv.index("--ranks") + 1])
    for name, (make, steps) in LIST.items():
        if ONLY not in name or not name.startswith(("vae", "dense_vae", "mae")): continue
        rows = {"mm, one process": [], f"mm, {ranks} processes": [], "PyTorch, one process": [], f"PyTorch, {ranks} processes": []}
        for _ in range(ROUNDS):
            for key, value in zip(rows, (ours(name, steps), in_ranks([[MM, name, str(steps), "1"]] * ranks), torch_steps(make, steps, True), in_ranks([[sys.executable, __file__, MM, "--rank-of", name, str(steps)]] * ranks))): rows[key].append(value)
        middle = [statistics.median(v) for v in rows.values()]
        print(f"{name}: " + ", ".join(f"{k} {v:.3g} steps/s" for k, v in zip(rows, middle)) + f"; mm's processes {middle[1] / middle[0]:.2f}x its one, {middle[1] / middle[3]:.2f}x PyTorch's; PyTorch's {middle[3] / middle[2]:.2f}x its one", flush=True)
    sys.exit()

for name, (make, steps) in LIST.items():
    if ONLY not in name: continue
    rows = {"mm": [], "PyTorch": [], "PyTorch, fused AdamW": []}
    for _ in range(ROUNDS):
        rows["mm"].append(ours(name, steps)); rows["PyTorch"].append(torch_steps(make, steps, None)); rows["PyTorch, fused AdamW"].append(torch_steps(make, steps, True))
    middle = {k: statistics.median(v) for k, v in rows.items()}
    peer = max(middle["PyTorch"], middle["PyTorch, fused AdamW"])
    print(f"{name}: " + ", ".join(f"{k} {v:.3g} steps/s" for k, v in middle.items()) + f"; mm {middle['mm'] / middle['PyTorch']:.2f}x PyTorch, {middle['mm'] / peer:.2f}x the better", flush=True)
