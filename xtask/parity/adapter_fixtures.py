#!/usr/bin/env python3
"""Small PEFT adapters for mm-repr's committed checkpoints, and answers of transformers for bare vocabularies with added tokens.

    python xtask/parity/adapter_fixtures.py crates/mm-repr/tests/fixtures

Writes adapters/NAME (adapter, `answers.safetensors`) for the models of families/, and tokens.json. Requires torch, transformers 5, peft.
"""
import json, shutil, sys, tempfile
from pathlib import Path
import peft, torch, transformers as tf
from PIL import Image
from safetensors.torch import save_file
torch.set_grad_enabled(False); torch.manual_seed(7); tf.logging.set_verbosity_error()
fixtures = Path(sys.argv[1]).resolve(); families = fixtures / "families"; out = fixtures / "adapters"
shutil.rmtree(out, ignore_errors=True); out.mkdir()
TEXTS = json.loads((families / "inputs/texts.json").read_text())

def perturb(model):
    for name, p in model.named_parameters():
        if "lora_" in name: p.add_(torch.randn_like(p) * 0.3)
def mean(model, tokenizer, texts):
    b = tokenizer(texts, padding=True, truncation=True, max_length=19, return_tensors="pt"); m = b["attention_mask"][..., None]
    h = model(input_ids=b["input_ids"], attention_mask=b["attention_mask"]).last_hidden_state
    return (h * m).sum(1) / m.sum(1)
def save(wrapped, folder, base):
    wrapped.eval(); wrapped.save_pretrained(folder); (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text()); config["base_model_name_or_path"] = f"../../families/{base}"
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
def load_base(base): return tf.BertModel.from_pretrained(families / base).eval()
tokenizer = tf.AutoTokenizer.from_pretrained(families / "bert-gelu")
for init in ("pissa", "olora"):
    folder = out / f"bert-{init}"; config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["query", "output.dense"], init_lora_weights=init)
    wrapped = peft.get_peft_model(load_base("bert-gelu"), config); perturb(wrapped); save(wrapped, folder, "bert-gelu")
    trained = mean(wrapped, tokenizer, TEXTS)
    again = peft.PeftModel.from_pretrained(load_base("bert-gelu"), folder).eval(); loaded = mean(again, tokenizer, TEXTS)
    print(init, "trained against loaded", (trained - loaded).abs().max().item(), "against the base", (trained - mean(load_base("bert-gelu"), tokenizer, TEXTS)).abs().max().item())
    save_file({"text": trained}, folder / "answers.safetensors")
# A tokenizer of its own with added tokens, and the embedding rows for them.
folder = out / "bert-added-rows"; own = tf.AutoTokenizer.from_pretrained(families / "bert-gelu"); own.add_tokens(["<new>", "doggo", "foxy", "<more>", "<most>"])
base = load_base("bert-gelu"); base.resize_token_embeddings(len(own)); base.embeddings.word_embeddings.weight[-6:].normal_()
wrapped = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["value"])); perturb(wrapped); save(wrapped, folder, "bert-gelu"); own.model_max_length = 19; own.save_pretrained(folder)
texts = ["a <new> doggo", "the foxy <more> fox"]; save_file({"text": mean(wrapped, own, texts)}, folder / "answers.safetensors"); (folder / "answers.json").write_text(json.dumps(texts))
print("added rows", len(own), [own.tokenize(t) for t in texts])
# ViT, whose layers transformers 5 renamed.
folder = out / "vit-version-5"; vit = tf.ViTForImageClassification.from_pretrained(families / "vit-classifier").eval()
wrapped = peft.get_peft_model(vit, peft.LoraConfig(r=2, target_modules=["q_proj", "o_proj", "fc1", "fc2"], modules_to_save=["classifier"])); perturb(wrapped)
wrapped.base_model.model.classifier.modules_to_save["default"].weight.normal_(); save(wrapped, folder, "vit-classifier")
processor = tf.ViTImageProcessorPil.from_pretrained(families / "vit-classifier"); pixels = [processor(images=Image.open(families / "inputs" / n).convert("RGB"), return_tensors="pt")["pixel_values"] for n in ("wide.png", "tall.jpg")]
inner = wrapped.base_model.model
save_file({"image": torch.cat([inner.vit(p).last_hidden_state[:, 0] for p in pixels]), "image_logits": torch.cat([wrapped(pixel_values=p).logits for p in pixels])}, folder / "answers.safetensors")
print("vit", [k for k in peft.get_peft_model_state_dict(wrapped)][:3])

# Bare vocabularies with special and added tokens.
CASES = []
def case(name, Tokenizer, files, texts):
    with tempfile.TemporaryDirectory() as folder:
        for file, text in files.items(): (Path(folder) / file).write_text(text if isinstance(text, str) else json.dumps(text))
        tokenizer = Tokenizer.from_pretrained(folder)
        CASES.append({"name": name, "files": {k: v if isinstance(v, str) else json.dumps(v) for k, v in files.items()}, "texts": texts, "ids": [tokenizer(t)["input_ids"] for t in texts]})
        print(name, [tokenizer.convert_ids_to_tokens(i) for i in CASES[-1]["ids"]])
vocab = "".join(w + "\n" for w in "[PAD] [UNK] [CLS] [SEP] [MASK] a the quick fox mask [ ] new ##tok red e é".split())
texts = ["a [MASK] fox", "the quick [SEP] fox", "A Quick fox", "a [NEW] fox, newtok NewTok [new]", "e\u0301 é"]
case("bert", tf.BertTokenizer, {"vocab.txt": vocab}, texts)
case("bert-added", tf.BertTokenizer, {"vocab.txt": vocab, "added_tokens.json": {"[NEW]": 17, "NewTok": 18}, "tokenizer_config.json": {"do_lower_case": True}}, texts)
case("bert-decoder", tf.BertTokenizer, {"vocab.txt": vocab, "tokenizer_config.json": {"do_lower_case": False, "added_tokens_decoder": {"17": {"content": "[NEW]", "special": True, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}, "18": {"content": "NewTok", "special": False, "lstrip": False, "rstrip": False, "single_word": False, "normalized": True}}}}, texts)
(fixtures / "tokens.json").write_text(json.dumps(CASES, ensure_ascii=False, indent=1) + "\n")
