"""Clients of other servers against `mm serve`, unchanged: openai (Python, and Node where that is installed),
huggingface_hub, langchain, mcp; and schemathesis on its description of the routes.

    python clients.py MM MODELS FIXTURES IMAGE AUDIO

MODELS is the folder of mm-repr's fixtures, FIXTURES that of mm-reason's.
"""

import asyncio
import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

import httpx
import numpy as np
import openai
from huggingface_hub import InferenceClient
from langchain_openai import OpenAIEmbeddings
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

KEY = "0123456789abcdef0123"


def start(mm, models):
    command = [mm, "serve", "--port", "0", "--json", "--device", "cpu", "--key-env", "MM_TEST_KEY"]
    command += [part for name, path in models.items() for part in ("--model", f"{name}={path}")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "MM_TEST_KEY": KEY}, text=True)
    url = json.loads(process.stdout.readline())["address"]
    while True:
        try:
            urllib.request.urlopen(url + "/ready").read()
            return process, url
        except urllib.error.HTTPError:
            pass


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}")


def main():
    mm, repr_fixtures, reason_fixtures, image, audio = sys.argv[1:]
    repr_fixtures, reason_fixtures = pathlib.Path(repr_fixtures), pathlib.Path(reason_fixtures)
    words, clip = repr_fixtures / "sentence-max", repr_fixtures / "families/clip-eos-gelu"
    models = {"words": words, "clip": clip, "chat": reason_fixtures / "qwen2_vl-image",
              "whisper": reason_fixtures / "whisper-english", "ranker": repr_fixtures / "families/bert-reranker"}
    process, url = start(mm, models)
    try:
        check_openai(mm, url, words, image, audio)
        check_langchain(url)
        check_huggingface(url)
        check_node(url, image, audio)
        asyncio.run(check_mcp(url, image, audio))
        check_schema(url)
    finally:
        process.terminate()
        assert process.wait(40) == 0
    print("every client is served")


def check_openai(mm, url, words, image, audio):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    texts = ["the quick fox", "a lazy dog"]
    found = client.embeddings.create(model="words", input=texts)  # asks for base64 by itself
    command = [mm, "embed", "--model", str(words), "--json", "--device", "cpu"]
    command += [part for text in texts for part in ("--text", text)]
    expected = [json.loads(line)["embedding"] for line in subprocess.check_output(command, text=True).splitlines()]
    distance = np.abs(np.array([d.embedding for d in found.data]) - np.array(expected)).max()
    assert distance < 1e-6, distance
    assert {m.id for m in client.models.list()} == {"words", "clip", "chat", "whisper", "ranker"}
    uri = "data:image/png;base64," + base64.b64encode(pathlib.Path(image).read_bytes()).decode()
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "the quick"}]}]
    options = {"model": "chat", "messages": messages, "temperature": 0, "max_tokens": 8}
    whole = client.chat.completions.create(**options)
    parts = client.chat.completions.create(**options, stream=True)
    assert "".join(p.choices[0].delta.content or "" for p in parts) == whole.choices[0].message.content
    schema = {"name": "a", "schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}
    constrained = client.chat.completions.create(
        **{**options, "max_tokens": 64}, response_format={"type": "json_schema", "json_schema": schema})
    if constrained.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(constrained.choices[0].message.content)["n"], int)
    with open(audio, "rb") as file:
        assert isinstance(client.audio.transcriptions.create(model="whisper", file=file).text, str)
    raises(openai.NotFoundError, lambda: client.embeddings.create(model="wrods", input="a"))
    error = raises(openai.BadRequestError, lambda: client.embeddings.create(model="words", input=[]))
    assert error.body["param"] == "input", error.body
    raises(openai.AuthenticationError, lambda: openai.OpenAI(base_url=f"{url}/v1", api_key="no", max_retries=0).models.list())
    raises(openai.APIStatusError, lambda: client.chat.completions.create(**{**options, "n": 10**6}))


def check_node(url, image, audio):
    if not (shutil.which("node") and shutil.which("npm")):
        print("skipped: openai-node, since node and npm are not installed")
        return
    folder = pathlib.Path(sys.prefix) / "node"
    folder.mkdir(exist_ok=True)
    if not (folder / "node_modules/openai").exists():
        subprocess.run(["npm", "install", "--silent", "--prefix", folder, "openai"], check=True)
    script = pathlib.Path(__file__).with_suffix(".mjs").resolve()
    files = [pathlib.Path(image).resolve(), pathlib.Path(audio).resolve()]
    subprocess.run(["node", script, url, KEY, *files], check=True, cwd=folder)


def check_langchain(url):
    embeddings = OpenAIEmbeddings(base_url=f"{url}/v1", api_key=KEY, model="words", check_embedding_ctx_length=False)
    one, two = embeddings.embed_documents(["the quick fox", "a lazy dog"])
    assert np.allclose(one, embeddings.embed_query("the quick fox"), atol=1e-6) and len(one) == len(two)


def check_huggingface(url):
    client = InferenceClient(base_url=f"{url}/embed", api_key=KEY)
    vectors = np.array(client.feature_extraction("the quick fox"))
    assert abs(np.linalg.norm(vectors) - 1) < 1e-5


async def check_mcp(url, image, audio):
    headers = httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
    async with headers, streamable_http_client(f"{url}/mcp", http_client=headers) as streams, \
            ClientSession(streams[0], streams[1]) as session:
        await session.initialize()
        names = [tool.name for tool in (await session.list_tools()).tools]
        assert names == ["embed", "caption", "answer", "classify", "transcribe"], names
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY)
        expected = client.embeddings.create(model="words", input="the quick fox").data[0].embedding
        found = await session.call_tool("embed", {"text": "the quick fox", "model": "words"})
        assert np.allclose(content(found)["embedding"], expected, atol=1e-6)
        encoded = base64.b64encode(pathlib.Path(audio).read_bytes()).decode()
        found = await session.call_tool("transcribe", {"audio": encoded})
        assert isinstance(content(found)["text"], str)
        wrong = (await session.call_tool("embed", {"txt": "a"})).model_dump(by_alias=True)
        assert wrong["isError"] and "did you mean `text`" in wrong["content"][0]["text"], wrong


def content(result):
    assert not result.model_dump(by_alias=True)["isError"], result
    return json.loads(result.content[0].text)


def check_schema(url):
    tool = pathlib.Path(sys.executable).parent / "schemathesis"
    command = [tool, "run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {KEY}", "--max-examples", "30", "--seed", "1",
               "--checks", "not_a_server_error,response_schema_conformance,content_type_conformance", "--exclude-path", "/media"]
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    print("\n".join(line for line in result.stdout.splitlines() if "generated" in line or "Operations" in line))


main()
