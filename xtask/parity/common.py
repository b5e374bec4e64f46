"""Shared by the scripts that write tiny checkpoints: arguments, input files, random weights, tokenizers."""
import argparse, json, random, shutil, subprocess, sys, warnings
from pathlib import Path
import numpy as np, torch, transformers as tf
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, AddedToken, models, normalizers, pre_tokenizers, processors, decoders, trainers

warnings.filterwarnings("ignore"); tf.logging.set_verbosity_error(); tf.utils.logging.disable_progress_bar()
parser = argparse.ArgumentParser(); parser.add_argument("out", type=Path); parser.add_argument("families", nargs="*"); parser.add_argument("--seed", type=int, default=0); parser.add_argument("--small", action="store_true"); parser.add_argument("--round-trip", action="store_true")
args = parser.parse_args(); out = args.out; out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(args.seed + 5)
VARIANTS = []

# ---- inputs -----------------------------------------------------------------------------------------------------------------
inputs = out / "inputs"; inputs.mkdir(exist_ok=True)
BASE_TEXTS = ["a dog", "", "   ", "The Quick brown fox jumps over the lazy dog, twice!", "élan naïve café", "unknownword 你好 42 🦊", "dog and fox " * 30, "Привет, мир! مرحبا"]
def random_text(r):
    """Words of several scripts, digits, punctuation, emoji, combining marks and odd spaces."""
    words = "the Quick brown fox's don't dog dogs jumps over U.S. 3.14 1,000 2024-01-31 e-mail a@b.org naïve Élan Straße ΣΊΣΥΦΟΣ İstanbul привет мир 你好世界 こんにちは 안녕 مرحبا שלום हिन्दी ไทย 🦊 👩‍👩‍👧 é ﬁ ½ … “x” (y) -- # $5 % & _ ~ <b>".split()
    return "".join(r.choice(words) + r.choice([" ", " ", " ", "  ", "\t", "\u00a0", ", ", ". ", "! ", "", "\n"]) for _ in range(r.randint(1, 40)))
TEXTS = BASE_TEXTS + ([random_text(random.Random(f"{args.seed} {n}")) for n in range(24)] if args.seed else [])
(inputs / "texts.json").write_text(json.dumps(TEXTS, ensure_ascii=False))
def sample_image(width, height, mode="RGB"):
    y, x = np.mgrid[0:height, 0:width]
    a = np.stack([127 + 90 * np.sin(x / (3 + c) + y / 9 + c) * np.cos(y / (5 - c)) for c in range(3)], -1) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(a, 0, 255).astype("uint8")).convert(mode)
IMAGES = ["wide.png", "tall.jpg", "grey.png"]
sample_image(61, 40).save(inputs / "wide.png"); sample_image(37, 83).save(inputs / "tall.jpg", quality=90); sample_image(45, 45, "L").save(inputs / "grey.png")
def read(name): return Image.open(inputs / name).convert("RGB")
def tone(seconds, rate):
    t = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (200 + 150 * t) * t) + 0.1 * np.sin(2 * np.pi * 1700 * t) + rng.normal(0, 0.02, len(t))).astype("float32")
import soundfile
AUDIOS = {16000: ["long16.wav", "short16.wav"], 48000: ["tone48.wav"]}
soundfile.write(inputs / "long16.wav", tone(1.37, 16000), 16000); soundfile.write(inputs / "short16.wav", tone(0.41, 16000), 16000); soundfile.write(inputs / "tone48.wav", tone(0.7, 48000), 48000)
def read_audio(name): return soundfile.read(inputs / name, dtype="float32")[0]
FRAMES = [np.asarray(sample_image(50, 38)) for _ in range(6)]
def ffmpeg():
    if shutil.which("ffmpeg"): return "ffmpeg"
    import os; found = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mm/ffmpeg/ffmpeg"
    if found.exists(): return str(found)
    import imageio_ffmpeg; return imageio_ffmpeg.get_ffmpeg_exe()
# Lossless, so that every decoder gives the same frames.
subprocess.run([ffmpeg(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "50x38", "-r", "5", "-i", "-", "-c:v", "ffv1", "-pix_fmt", "gbrp", str(inputs / "frames.mkv")], input=b"".join(f.tobytes() for f in FRAMES), check=True)

# ---- helpers ----------------------------------------------------------------------------------------------------------------
def variant(name):
    """Registers a function that writes a checkpoint folder; it runs when its name or its family is selected."""
    def register(make):
        VARIANTS.append((name, make)); return make
    return register
def randomize(model, std=0.25):
    with torch.no_grad():
        for name, p in list(model.named_parameters()) + list(model.named_buffers()):
            if not p.is_floating_point() or "attn_mask" in name or "inv_freq" in name: continue
            if name.endswith("running_var"): p.uniform_(0.5, 2)
            elif "logit_scale" in name: p.fill_(1.7)
            elif "logit_bias" in name: p.fill_(-0.6)
            elif p.ndim > 1: p.normal_(0, 1.4 / max(1, p[0].numel()) ** 0.5)
            elif name.endswith("running_mean"): p.normal_(0, 0.3)
            elif name in ("embed_positions.weight",) or "position_ids" in name: continue
            elif "norm" in name.lower() and name.endswith("weight") or name.endswith("lambda1"): p.normal_(1, 0.2)
            elif name.endswith("original0"): p.uniform_(0.5, 1.5)
            else: p.normal_(0, std)
    return model.eval()
def answers(folder, metadata=None, **tensors):
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, folder / "answers.safetensors")
    (folder / "answers.json").write_text(json.dumps(metadata or {}, ensure_ascii=False))
def labels(n): return {"id2label": {i: f"thing {i}" for i in range(n)}, "label2id": {f"thing {i}": i for i in range(n)}}
def unit(x): return x / x.norm(dim=-1, keepdim=True)
def mean(hidden, mask=None):
    if mask is None: return hidden.mean(1)
    m = mask[..., None].to(hidden); return (hidden * m).sum(1) / m.sum(1).clamp(min=1e-9)
def pad_rows(rows, value=-1):
    width = max(len(r) for r in rows); return torch.tensor([list(r) + [value] * (width - len(r)) for r in rows])

# ---- tokenizers -------------------------------------------------------------------------------------------------------------
CORPUS = [t for t in BASE_TEXTS if t.strip()] + ["the quick brown foxes and the lazy dogs", "naive cafe elan", "over and over twice jumping 42 24"]
def word_piece(lower=True, **names):
    pad, unk, cls, sep, mask = [names.get(k, d) for k, d in (("pad", "[PAD]"), ("unk", "[UNK]"), ("cls", "[CLS]"), ("sep", "[SEP]"), ("mask", "[MASK]"))]
    words = [pad, unk, cls, sep, mask] + "a the quick brown fox jump ##s over lazy dog , ! twice elan naive cafe 你 好 4 ##2 un ##known ##word and mp".split()
    t = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token=unk)); t.normalizer = normalizers.BertNormalizer(lowercase=lower); t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.post_processor = processors.TemplateProcessing(single=f"{cls} $A {sep}", special_tokens=[(cls, words.index(cls)), (sep, words.index(sep))])
    return tf.PreTrainedTokenizerFast(tokenizer_object=t, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask)
def byte_bpe(size=330, bos="<s>", eos="</s>", pad="<pad>", prefix=False):
    t = Tokenizer(models.BPE()); t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix); t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, special_tokens=[bos, pad, eos, "<unk>", "<mask>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.post_processor = processors.RobertaProcessing((eos, t.token_to_id(eos)), (bos, t.token_to_id(bos)), add_prefix_space=prefix, trim_offsets=True)
    return tf.PreTrainedTokenizerFast(tokenizer_object=t, bos_token=bos, eos_token=eos, cls_token=bos, sep_token=eos, pad_token=pad, unk_token="<unk>", mask_token="<mask>")
def unigram(size=90, add=True):
    t = Tokenizer(models.Unigram()); t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}" if False else "  ", " ")]); t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=size, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False))
    single = "<s> $A </s>" if add else "$A </s>"
    t.post_processor = processors.TemplateProcessing(single=single, special_tokens=[(k, t.token_to_id(k)) for k in ("<s>", "</s>")])
    return tf.PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>")
def sentencepiece_model(file, size=90, **more):
    import sentencepiece
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS * 3), model_prefix=str(file), vocab_size=size, model_type="unigram", hard_vocab_limit=False, minloglevel=2, **more)
    Path(f"{file}.vocab").unlink(); Path(f"{file}.model").rename(file)
def clip_bpe(size=400):
    """CLIP's tokenizer: lower case, byte-level BPE with </w> at the end of words."""
    t = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(__import__("tokenizers").Regex(r"\s+"), " "), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(__import__("tokenizers").Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()); vocab = alphabet + [c + "</w>" for c in alphabet]; merges = []
    for a, b in (("d", "o"), ("do", "g</w>"), ("f", "o"), ("fo", "x</w>"), ("t", "h"), ("th", "e</w>"), ("q", "u"), ("a", "n"), ("an", "d</w>")): merges.append((a, b)); vocab.append(a + b)
    vocab += ["<|startoftext|>", "<|endoftext|>"]; ids = {w: i for i, w in enumerate(vocab)}
    t.model = models.BPE(vocab=ids, merges=merges, continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False, unk_token="<|endoftext|>")
    t.post_processor = processors.RobertaProcessing(("<|endoftext|>", ids["<|endoftext|>"]), ("<|startoftext|>", ids["<|startoftext|>"]), add_prefix_space=False, trim_offsets=False)
    return tf.PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<|startoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>"), ids, merges
