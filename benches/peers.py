#!/usr/bin/env python3
"""mm against other inference libraries on the same checkpoints and workloads, alternating: transformers and sentence-transformers
on PyTorch, ONNX Runtime, OpenVINO, candle. Two threads each; random weights at published sizes (and the real all-MiniLM-L6-v2).

    cargo xtask bench peers [--quick] [--only TEXT]      (TEXT: part of a title, for instance CLIP, BLIP, ViLT, Whisper)

Each value is the median of three rounds, each itself a median. Ratios are mm's value over the best other library's.
bfloat16 is left out, with a message, where the processor has no instructions for it: it is emulated there, at 1 GFLOP/s.
"""
import json, statistics, subprocess, sys, time
# Started while this process is small: the peak memory of a child process includes that of the process that forks it.
LAUNCHER = subprocess.Popen([sys.executable, "-c", """
import json, os, subprocess, sys, time
for line in sys.stdin:
    start = time.perf_counter(); process = subprocess.Popen(json.loads(line), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    text = process.stdout.read(); _, status, used = os.wait4(process.pid, 0)
    print(json.dumps([status, time.perf_counter() - start, used.ru_maxrss / 1024, text]), flush=True)
"""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
def launch(*command):
    """Seconds, peak resident memory in MB, and standard output of a process."""
    LAUNCHER.stdin.write(json.dumps([str(c) for c in command]) + "\n"); LAUNCHER.stdin.flush()
    status, seconds, memory, text = json.loads(LAUNCHER.stdout.readline()); assert status == 0, command
    return seconds, memory, text
import warnings
from pathlib import Path
warnings.filterwarnings("ignore")
import numpy as np, torch, transformers as tf
from PIL import Image
tf.logging.set_verbosity_error(); tf.utils.logging.disable_progress_bar()
torch.set_grad_enabled(False); torch.manual_seed(0); torch.set_num_threads(2)
FORWARD, MM, cache, minilm = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
ROUNDS = 1 if "--quick" in sys.argv else 3
ONLY = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
HAS_BF16 = any(flag in Path("/proc/cpuinfo").read_text().split() for flag in ("avx512_bf16", "amx_bf16", "bf16"))
if not HAS_BF16: print("this processor has no bfloat16 instructions: its rows are left out", flush=True)
cache.mkdir(parents=True, exist_ok=True); rng = np.random.default_rng(0)

def best(f, n, k=5):
    f(); t = []
    for _ in range(k):
        s = time.perf_counter(); f(); t.append(time.perf_counter() - s)
    return n / sorted(t)[k // 2]
CANDLE = FORWARD.parents[1] / "candle/release/mm-candle"
def candle(*arguments): return float(subprocess.run([CANDLE, *map(str, arguments)], check=True, capture_output=True, text=True).stdout)
def ours(*arguments): return float(subprocess.run([FORWARD, *map(str, arguments)], check=True, capture_output=True, text=True).stdout)
def duel(title, rows):
    """rows: name → function that returns a measurement; all alternate."""
    rows = {n: f for n, f in rows.items() if HAS_BF16 or "bf16" not in n}
    if ONLY not in title or not rows: return
    got = {name: [] for name in rows}
    for _ in range(ROUNDS):
        for name, f in rows.items(): got[name].append(f())
    middle = {name: statistics.median(v) for name, v in got.items()}
    peers = {n: v for n, v in middle.items() if not n.startswith("mm")}; top = max(peers, key=peers.get)
    mine = [n for n in middle if n.startswith("mm")]
    if "candle" in middle: print(f"  mm is {middle[mine[0]] / middle['candle']:.2f}x candle", flush=True)
    print(f"{title}: " + ", ".join(f"{n} {v:.1f}" for n, v in middle.items()) + "".join(f"; {n} {middle[n] / peers[top]:.2f}x {top}" for n in mine), flush=True)
    return middle

# ---- checkpoints and files, created once ---------------------------------------------------------------------------------------
def cached(name, make):
    folder = cache / name
    if not (folder / "model.safetensors").exists(): make(folder)
    return folder
def clip(folder): tf.CLIPModel(tf.CLIPConfig()).save_pretrained(folder); tf.CLIPImageProcessor().save_pretrained(folder); words(folder)
def words(folder):
    from tokenizers import Tokenizer, models
    words = {f"w{i}": i for i in range(49407)}
    tf.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={**words, "<|endoftext|>": 49407}, merges=[], unk_token="<|endoftext|>")), eos_token="<|endoftext|>", pad_token="<|endoftext|>").save_pretrained(folder)
def resnet(folder): tf.ResNetForImageClassification(tf.ResNetConfig()).save_pretrained(folder); tf.ConvNextImageProcessor(size={"shortest_edge": 224}).save_pretrained(folder)
def wav2vec(folder): tf.Wav2Vec2Model(tf.Wav2Vec2Config()).save_pretrained(folder); tf.Wav2Vec2FeatureExtractor().save_pretrained(folder)
CLIP, RESNET, WAVE = cached("clip", clip), cached("resnet50", resnet), cached("wav2vec2", wav2vec)
images = cache / "images"
if not images.exists():
    images.mkdir()
    for i in range(64):
        y, x = np.mgrid[0:480, 0:640]
        a = np.stack([127 + 100 * np.sin(x / (9 + i) + c) * np.cos(y / (11 + c)) for c in range(3)], -1) + rng.normal(0, 8, (480, 640, 3))
        Image.fromarray(np.clip(a, 0, 255).astype("uint8")).save(images / f"{i:03}.jpg", quality=90)
FILES = sorted(images.glob("*.jpg"))
recordings = cache / "recordings"
if not recordings.exists():
    import soundfile; recordings.mkdir()
    for i, seconds in enumerate(rng.uniform(1, 8, 24)): soundfile.write(recordings / f"{i:03}.wav", rng.normal(0, 0.1, int(seconds * 16000)), 16000)
RECORDINGS = sorted(recordings.glob("*.wav"))
vocabulary = "a picture of the red dog running over green hill while two people watch it from old wooden bench near river".split()
rng = np.random.default_rng(1); TEXTS = [" ".join(rng.choice(vocabulary, int(n))) for n in rng.integers(3, 60, 1000)]
def manifest(name, column, values):
    (cache / name).write_text("".join(json.dumps({"id": str(i), column: str(v)}) + "\n" for i, v in enumerate(values))); return cache / name
IMAGE_MANIFEST, AUDIO_MANIFEST, TEXT_MANIFEST = manifest("images.jsonl", "image", FILES), manifest("recordings.jsonl", "audio", RECORDINGS), manifest("texts.jsonl", "text", TEXTS)

# ---- the forward pass -------------------------------------------------------------------------------------------------
class Vision(torch.nn.Module):
    def __init__(s, m): super().__init__(); s.m = m
    def forward(s, x): o = s.m(pixel_values=x); return o.logits if hasattr(o, "logits") else o.pooler_output
class Text(torch.nn.Module):
    def __init__(s, m): super().__init__(); s.m = m
    def forward(s, i, k): return s.m(input_ids=i, attention_mask=k).last_hidden_state
x = torch.randn(16, 3, 224, 224); ids = torch.randint(1000, 20000, (32, 48)); mask = torch.ones_like(ids)
for dt in (torch.float32, torch.bfloat16)[: 1 + HAS_BF16]:
    a = torch.randn(1024, 1024).to(dt); print(f"matmul {dt}: {best(lambda: [a @ a for _ in range(20)], 20 * 2 * 1024**3) / 1e9:.0f} GFLOP/s", flush=True)
for name, m, args, mine in (("CLIP ViT-B/32 vision, batch 16", Vision(tf.CLIPVisionModel.from_pretrained(CLIP, attn_implementation="sdpa").eval()), (x,), (CLIP, "image", 16)),
                            ("ResNet-50, batch 16", Vision(tf.ResNetForImageClassification.from_pretrained(RESNET).eval()), (x,), (RESNET, "image", 16)),
                            ("all-MiniLM-L6, 32 x 48 tokens", Text(tf.AutoModel.from_pretrained(minilm).eval()), (ids, mask), (minilm, "text", 32))):
    if ONLY not in name: continue
    n = len(args[0]); half = tuple(a.to(torch.bfloat16) if a.is_floating_point() else a for a in args)
    import copy; mb = copy.deepcopy(m).to(torch.bfloat16)
    f32 = {"mm f32": lambda: ours(*mine, "f32"), "PyTorch": lambda: best(lambda: m(*args), n)}
    bf16 = {"mm bf16": lambda: ours(*mine, "bf16"), "PyTorch bf16": lambda: best(lambda: mb(*half), n)}
    if CANDLE.exists(): f32["candle"] = lambda: candle(mine[0], {CLIP: "clip", RESNET: "resnet"}.get(mine[0], "bert"), n)
    if len(args) == 1:
        mc = copy.deepcopy(m).to(memory_format=torch.channels_last); xc = x.to(memory_format=torch.channels_last); f32["PyTorch channels-last"] = lambda: best(lambda: mc(xc), n)
    import openvino as ov
    core = ov.Core(); om = ov.convert_model(m, example_input=args); ins = [a.numpy() for a in args]
    for precision, rows in (("f32", f32), ("bf16", bf16)):
        c = core.compile_model(om, "CPU", {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 2}); rows[f"OpenVINO {precision}"] = lambda c=c: best(lambda: c(ins), n)
    import onnxruntime as ort
    file = str(cache / "m.onnx"); torch.onnx.export(m, args, file, dynamo=False, opset_version=17, verbose=False)
    o = ort.SessionOptions(); o.intra_op_num_threads = 2; session = ort.InferenceSession(file, o, providers=["CPUExecutionProvider"])
    feed = {i.name: a.numpy() for i, a in zip(session.get_inputs(), args)}; f32["ONNX Runtime"] = lambda: best(lambda: session.run(None, feed), n)
    a, b = duel(name + " f32", f32), duel(name + " bf16", bf16)
    if a and b: print(f"  mm bf16 is {b['mm bf16'] / a['mm f32']:.2f}x mm f32", flush=True)

# ---- generative models ------------------------------------------------------------------------------------------------------
GENERATE = FORWARD.with_name("generate")
def generate_rate(*arguments): return float(subprocess.run([GENERATE, *map(str, arguments)], check=True, capture_output=True, text=True).stdout)
def plain_words(folder, size, *special):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *special]; words = names + [f"w{i}" for i in range(size - len(names))]; t = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]")); t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if not special: t.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    t = tf.PreTrainedTokenizerFast(tokenizer_object=t, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"); t.save_pretrained(folder); return t
def blip(kind):
    def make(folder):
        kind(tf.BlipConfig(text_config=dict(num_attention_heads=12, bos_token_id=2, sep_token_id=3, pad_token_id=0))).save_pretrained(folder); tf.models.blip.image_processing_pil_blip.BlipImageProcessorPil().save_pretrained(folder); plain_words(folder, 30524)
    return make
def vilt(folder): tf.ViltForQuestionAnswering(tf.ViltConfig(num_labels=3129)).save_pretrained(folder); tf.models.vilt.image_processing_pil_vilt.ViltImageProcessorPil().save_pretrained(folder); plain_words(folder, 30522)
def whisper(folder):
    m = tf.WhisperForConditionalGeneration(tf.WhisperConfig(decoder_start_token_id=4, eos_token_id=3, pad_token_id=0, bos_token_id=3, begin_suppress_tokens=[3])); m.save_pretrained(folder); tf.WhisperFeatureExtractor().save_pretrained(folder); plain_words(folder, 51865, "<|startoftranscript|>")
if not ONLY or "BLIP" in ONLY or "ViLT" in ONLY or "Whisper" in ONLY:
    BLIP, VQA, VILT, WHISPER = cached("blip", blip(tf.BlipForConditionalGeneration)), cached("blip-vqa", blip(tf.BlipForQuestionAnswering)), cached("vilt", vilt), cached("whisper-tiny", whisper)
    bm = tf.BlipForConditionalGeneration.from_pretrained(BLIP).eval(); bp = tf.models.blip.image_processing_pil_blip.BlipImageProcessorPil.from_pretrained(BLIP); N = 20
    def pixels(p): return p(images=Image.open(FILES[0]), return_tensors="pt")["pixel_values"]
    for beams in (1, 5):
        go = lambda: bm.generate(pixel_values=pixels(bp), num_beams=beams, max_new_tokens=N, min_new_tokens=N)
        duel(f"BLIP-base caption of {N} tokens, {beams} beams, tokens/s", {"mm": lambda: generate_rate(BLIP, "caption", FILES[0], beams, N, "f32"), "mm bf16": lambda: generate_rate(BLIP, "caption", FILES[0], beams, N, "bf16"), "transformers": lambda: best(go, N, 3)})
        encoded = bm.vision_model(pixels(bp))[0]; start = torch.tensor([[2]]); step = lambda: bm.text_decoder.generate(input_ids=start, encoder_hidden_states=encoded, encoder_attention_mask=torch.ones(encoded.shape[:2]), eos_token_id=3, pad_token_id=0, num_beams=beams, max_new_tokens=N, min_new_tokens=N)
        duel(f"BLIP-base decoding alone, {beams} beams, tokens/s", {"mm": lambda: generate_rate(BLIP, "steps", FILES[0], beams, N, "f32"), "transformers": lambda: best(step, N, 3)})
    vm = tf.BlipForQuestionAnswering.from_pretrained(VQA).eval(); vt = tf.AutoTokenizer.from_pretrained(VQA); questions = [f"w{10 + n} w{n} w{7 * n} w99" for n in range(10)]
    def ten():
        for q in questions: vm.generate(pixel_values=pixels(bp), **{k: v for k, v in vt(q, return_tensors="pt").items() if k != "token_type_ids"}, max_new_tokens=5, min_new_tokens=5)
    duel("BLIP-base, ten questions about one image, questions/s", {"mm": lambda: generate_rate(VQA, "answer", FILES[0], 10, 5, "f32"), "transformers": lambda: best(ten, 10, 3)})
    lm = tf.ViltForQuestionAnswering.from_pretrained(VILT).eval(); lp = tf.models.vilt.image_processing_pil_vilt.ViltImageProcessorPil.from_pretrained(VILT); lt = tf.AutoTokenizer.from_pretrained(VILT)
    def one(): lm(**lt(questions[0], return_tensors="pt"), **lp(images=Image.open(FILES[0]), return_tensors="pt"))
    duel("ViLT-base, a question about an image, questions/s", {"mm": lambda: generate_rate(VILT, "answer", FILES[0], 1, 1, "f32"), "transformers": lambda: best(one, 1, 5)})
    import soundfile
    hm = tf.WhisperForConditionalGeneration.from_pretrained(WHISPER).eval(); hp = tf.WhisperFeatureExtractor.from_pretrained(WHISPER); audio = cache / "half-minute.wav"
    if not audio.exists(): soundfile.write(audio, rng.normal(0, 0.1, 30 * 16000), 16000)
    def transcribe(): hm.generate(hp(soundfile.read(audio, dtype="float32")[0], sampling_rate=16000, return_tensors="pt")["input_features"], max_new_tokens=80, min_new_tokens=80)
    duel("Whisper-tiny, 30 s as 80 tokens, recordings/s", {"mm": lambda: generate_rate(WHISPER, "transcribe", audio, 1, 80, "f32"), "transformers": lambda: best(transcribe, 1, 3)})
    code = f"import transformers as t,torch;torch.set_num_threads(2);torch.set_grad_enabled(False);m=t.BlipForConditionalGeneration.from_pretrained('{BLIP}');from PIL import Image;p=t.models.blip.image_processing_pil_blip.BlipImageProcessorPil.from_pretrained('{BLIP}');m.generate(**p(images=Image.open('{FILES[0]}'),return_tensors='pt'),max_new_tokens=20,num_beams=5)"
    mine, theirs = launch(MM, "caption", "--model", BLIP, "--image", FILES[0], "--num-beams", "5", "--max-new-tokens", "20", "--threads", "2", "--json"), launch(sys.executable, "-c", code)
    print(f"BLIP-base, process start to caption: mm {mine[0]:.2f} s in {mine[1]:.0f} MB, Python {theirs[0]:.2f} s in {theirs[1]:.0f} MB: {mine[1] / theirs[1]:.2f}", flush=True)
if any(t in ONLY for t in ("BLIP", "ViLT", "Whisper")): sys.exit()

# ---- from files to embeddings --------------------------------------------------------------------------------------------------
cm = tf.CLIPModel.from_pretrained(CLIP).eval(); cp = tf.CLIPImageProcessor.from_pretrained(CLIP)
def clip_files():
    for i in range(0, 64, 32): cm.get_image_features(**cp([Image.open(f) for f in FILES[i:i + 32]], return_tensors="pt"))
duel("CLIP ViT-B/32, files to embeddings, images/s", {"mm": lambda: ours(CLIP, "files", IMAGE_MANIFEST, "f32"), "mm bf16": lambda: ours(CLIP, "files", IMAGE_MANIFEST, "bf16"), "transformers": lambda: best(clip_files, 64, 3)})
rm = tf.ResNetForImageClassification.from_pretrained(RESNET).eval(); rp = tf.ConvNextImageProcessor.from_pretrained(RESNET)
def resnet_files():
    for i in range(0, 64, 32): rm(**rp([Image.open(f) for f in FILES[i:i + 32]], return_tensors="pt"))
duel("ResNet-50, files to embeddings, images/s", {"mm": lambda: ours(RESNET, "files", IMAGE_MANIFEST, "f32"), "transformers": lambda: best(resnet_files, 64, 3)})
from sentence_transformers import SentenceTransformer
st = SentenceTransformer(str(minilm), device="cpu")
duel("all-MiniLM-L6-v2, 1,000 texts of 3 to 60 words, texts/s", {"mm": lambda: ours(minilm, "files", TEXT_MANIFEST, "f32"), "mm bf16": lambda: ours(minilm, "files", TEXT_MANIFEST, "bf16"), "sentence-transformers": lambda: best(lambda: st.encode(TEXTS, batch_size=32), 1000, 3)})
import soundfile
wm = tf.Wav2Vec2Model.from_pretrained(WAVE).eval(); wp = tf.Wav2Vec2FeatureExtractor.from_pretrained(WAVE)
def wave_files():
    for f in RECORDINGS: wm(**wp(soundfile.read(f, dtype="float32")[0], sampling_rate=16000, return_tensors="pt"))
duel("Wav2Vec2-base, 24 recordings of 1 to 8 s, one at a time for transformers, recordings/s", {"mm": lambda: ours(WAVE, "files", AUDIO_MANIFEST, "f32"), "transformers": lambda: best(wave_files, 24, 3)})

# ---- from process start to the first embedding, and memory ----------------------------------------------------------
code = f"import transformers as t,torch;torch.set_num_threads(2);m=t.CLIPModel.from_pretrained('{CLIP}');from PIL import Image;p=t.CLIPImageProcessor.from_pretrained('{CLIP}');m.get_image_features(**p(Image.open('{FILES[0]}'),return_tensors='pt'))"
ours_first = [MM, "embed", "--model", CLIP, "--image", FILES[0], "--threads", "2", "--json"]
starts = {"mm": [], "Python": []}
for _ in range(3): starts["mm"].append(launch(*ours_first)); starts["Python"].append(launch(sys.executable, "-c", code))
mine, theirs = [tuple(statistics.median(v[i] for v in starts[k]) for i in (0, 1)) for k in ("mm", "Python")]
print(f"CLIP, process start to first embedding: mm {mine[0]:.2f} s, Python {theirs[0]:.2f} s: {theirs[0] / mine[0]:.1f}x faster; peak resident memory mm {mine[1]:.0f} MB, Python {theirs[1]:.0f} MB: {mine[1] / theirs[1]:.2f}", flush=True)
many = manifest("many.jsonl", "image", FILES * 8)
code = f"import transformers as t,torch;torch.set_num_threads(2);torch.set_grad_enabled(False);m=t.CLIPModel.from_pretrained('{CLIP}');from PIL import Image;p=t.CLIPImageProcessor.from_pretrained('{CLIP}')\nimport pathlib;f=sorted(pathlib.Path('{images}').glob('*.jpg'))\nfor i in range(0,64,32): m.get_image_features(**p([Image.open(x) for x in f[i:i+32]],return_tensors='pt'))"
def embed_all(data):
    out = cache / "out.npy"
    for left in (out, cache / "out.npy.part"): subprocess.run(["rm", "-rf", str(left)])
    _, memory, text = launch(MM, "embed", "--model", CLIP, "--data", data, "--out", out, "--threads", "2", "--json")
    return json.loads(text)["per_second"], memory
small, large = embed_all(IMAGE_MANIFEST), embed_all(many); python = launch(sys.executable, "-c", code)
peak = ours("-", "matmul", 1024, "f32")
print(f"CLIP, mm embed --data: 64 images {small[0]:.1f}/s in {small[1]:.0f} MB, 512 images {large[0]:.1f}/s in {large[1]:.0f} MB ({large[0] * 8.82 / peak:.2f} of the matmul rate {peak:.0f} GFLOP/s); Python on the 64 {python[1]:.0f} MB: {small[1] / python[1]:.2f}", flush=True)
