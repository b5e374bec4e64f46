"""The server that many write themselves: a model behind FastAPI, in OpenAI's shape, without batching.

    python serve_fastapi.py MODEL PORT texts|images|speech
"""

import base64
import io
import sys

import torch
import uvicorn
from fastapi import FastAPI, File, Form
from pydantic import BaseModel

MODEL, PORT, KIND = sys.argv[1], int(sys.argv[2]), sys.argv[3]
app = FastAPI()


class Request(BaseModel):
    input: str | list[str]
    model: str = ""


def embedder():
    if KIND == "texts":
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(MODEL, device="cpu")
        return lambda texts: model.encode(texts, show_progress_bar=False).tolist()
    from PIL import Image
    from transformers import CLIPImageProcessorPil, CLIPModel

    model, processor = CLIPModel.from_pretrained(MODEL).eval(), CLIPImageProcessorPil.from_pretrained(MODEL)

    @torch.inference_mode()
    def embed(urls):
        images = [Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))).convert("RGB") for url in urls]
        features = model.get_image_features(**processor(images=images, return_tensors="pt")).pooler_output
        return features.tolist()

    return embed


@app.get("/health")
def health():
    return {}


if KIND == "speech":
    import soundfile
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizerFast

    model = WhisperForConditionalGeneration.from_pretrained(MODEL).eval()
    extractor, tokenizer = WhisperFeatureExtractor.from_pretrained(MODEL), WhisperTokenizerFast.from_pretrained(MODEL)

    @app.post("/v1/audio/transcriptions")
    @torch.inference_mode()
    def transcriptions(file: bytes = File(), language: str = Form("en")):
        samples, rate = soundfile.read(io.BytesIO(file), dtype="float32")
        features = extractor(samples, sampling_rate=rate, return_tensors="pt").input_features
        ids = model.generate(features, language=language, task="transcribe")
        return {"text": tokenizer.batch_decode(ids, skip_special_tokens=True)[0]}
else:
    embed = embedder()

    @app.post("/v1/embeddings")
    def embeddings(request: Request):
        vectors = embed([request.input] if isinstance(request.input, str) else request.input)
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        return {"object": "list", "data": data, "model": request.model, "usage": {"prompt_tokens": 0, "total_tokens": 0}}


uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
