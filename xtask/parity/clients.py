"""Clients of other servers against `mm serve`, unchanged: openai (Python, and Node where that is installed),
huggingface_hub, langchain, mcp, each with the exceptions that it raises for bad input; and schemathesis on its description
of the routes.

    python clients.py MM MODELS FIXTURES IMAGE AUDIO

MODELS is the folder of mm-repr's fixtures, FIXTURES that of mm-reason's.
"""

import asyncio
import base64
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import wave

import httpx
import numpy as np
import openai
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from langchain_openai import OpenAIEmbeddings
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

KEY = "0123456789abcdef0123"
# A chat template that knows no system messages, as that of Gemma.
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def start(mm, models, options=("--key-env", "MM_TEST_KEY")):
    command = [mm, "serve", "--port", "0", "--json", "--device", "cpu", *options]
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
    chat = reason_fixtures / "qwen2_vl-image"
    with tempfile.TemporaryDirectory() as folder:
        strict = pathlib.Path(folder) / "strict"
        shutil.copytree(chat, strict)
        template = strict / "chat_template.jinja"
        template.write_text(NO_SYSTEM + template.read_text())
        models = {"words": words, "clip": clip, "chat": chat, "whisper": reason_fixtures / "whisper-english",
                  "ranker": repr_fixtures / "families/bert-reranker", "sounds": repr_fixtures / "families/clap-unfused",
                  "strict": strict}
        process, url = start(mm, models)
        try:
            check_openai(mm, url, words, image, audio)
            check_openai_errors(url)
            check_langchain(url)
            check_huggingface(url)
            check_node(url, image, audio)
            asyncio.run(check_mcp(url, image, audio))
            check_schema(url)
        finally:
            process.terminate()
            assert process.wait(40) == 0
        check_rate(mm, words, pathlib.Path(folder))
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
    assert {m.id for m in client.models.list()} == {"words", "clip", "chat", "whisper", "ranker", "sounds", "strict"}
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


def empty_wav():
    """A recording of 0 samples."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16000)
    return buffer.getvalue()


def check_openai_errors(url):
    """Each bad input has the exception class of its status, the field as `param`, and a message with what is wrong."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    bad, large = openai.BadRequestError, openai.APIStatusError  # 413 has no class of its own
    embed = lambda input, model="words", **options: lambda: client.embeddings.create(model=model, input=input, **options)
    user = lambda content: [{"role": "user", "content": content}]
    chat = lambda messages, model="chat", **options: lambda: client.chat.completions.create(
        **{"model": model, "messages": messages, "max_tokens": 4, **options})
    picture = lambda url: user([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "the"}])
    transcribe = lambda data, **options: lambda: client.audio.transcriptions.create(
        model="whisper", file=("a.wav", data), **options)
    no_image, no_base64 = (f"data:image/png;base64,{data}" for data in ("bm90IGFuIGltYWdl", "####"))
    no_samples = base64.b64encode(empty_wav()).decode()
    system = [{"role": "system", "content": "the"}, *user("quick")]
    cases = [
        # An unknown model, with the nearest one.
        (openai.NotFoundError, 404, "model", "did you mean `words`", embed("a", model="wrods")),
        (openai.NotFoundError, 404, "model", "did you mean `chat`", chat(user("a"), model="chet")),
        (openai.NotFoundError, 404, "model", "did you mean `words`", lambda: client.models.retrieve("wrods")),
        (bad, 400, "model", "expected one that chats", chat(user("a"), model="words")),
        # Empty input.
        (bad, 400, "input", "no inputs", embed([])),
        (bad, 400, "input", "an empty text", embed("")),
        (bad, 400, "input[1]", "an empty text", embed(["a", " "])),
        (bad, 400, "messages", "at least one message", chat([])),
        (bad, 400, "file", "no bytes", transcribe(b"")),
        # Wrong types.
        (bad, 400, "input", "found 3", embed(3)),
        (bad, 400, "input[0]", "input[0]: found", embed([{"image": 3}], model="clip")),
        (bad, 400, "input", "token ids", embed([1, 2])),
        (bad, 400, "dimensions", "expected a whole number", embed("a", dimensions="many")),
        (bad, 400, "messages", "expected a list", chat("a")),
        (bad, 400, "messages[0].content", "a text or a list of parts", chat(user(3))),
        (bad, 400, "temperature", "found 9", chat(user("a"), temperature=9)),
        (bad, 400, "tools", "tools: found", chat(user("a"), tools=[{"type": "function", "function": {"name": "a"}}])),
        (bad, 400, "response_format", "verbose_json", transcribe(b"RIFF", response_format="xml")),
        # More dimensions than the model has.
        (bad, 400, "dimensions", "those of model words", embed("a", dimensions=10**6)),
        # An image that is not one, and base64 that is none.
        (bad, 400, "input", "not an image", embed([{"image": no_image}], model="clip")),
        (bad, 400, "input[0].image", "not base64", embed([{"image": no_base64}], model="clip")),
        (bad, 400, "messages[0].content[0].image_url", "not an image", chat(picture(no_image))),
        (bad, 400, "messages[0].content[0].image_url", "not base64", chat(picture(no_base64))),
        # Audio of 0 samples, and audio that is none.
        (bad, 400, "file", "expected a recording", transcribe(empty_wav())),
        (bad, 400, "file", "expected a recording", transcribe(b"not audio")),
        (bad, 400, "input", "expected a recording", embed([{"audio": no_samples}], model="sounds")),
        # More than the server takes.
        (large, 413, "n", "found 1000000", chat(user("a"), n=10**6)),
        (large, 413, "max_completion_tokens", "at most", chat(user("a"), max_tokens=10**9)),
        (large, 413, "input", "2049 inputs", embed(["a"] * 2049)),
        (large, 413, None, "max_body_bytes", embed("a" * (33 << 20))),
        # A role that no template has, and one that the model's own has not.
        (bad, 400, "messages[0].role", "robot", chat([{"role": "robot", "content": "a"}])),
        (bad, 400, "messages", "System role not supported", chat(system, model="strict")),
        (bad, 400, "messages", "System role not supported", chat(system, model="strict", stream=True)),
        # A context that is too long.
        (bad, 400, "input", "a longer text than the model takes", embed("a dog " * 100)),
        (bad, 400, "messages", "positions", chat(user("the quick " * 3000))),
        (bad, 400, "messages", "positions", chat(user("the quick " * 3000), stream=True)),
        # Other keys and pages.
        (openai.AuthenticationError, 401, None, "key", lambda: client.with_options(api_key="no").models.list()),
        (openai.PermissionDeniedError, 403, None, "", lambda: client.with_options(
            default_headers={"Origin": "https://example.org"}).embeddings.create(model="words", input="a")),
    ]
    for kind, status, param, words, call in cases:
        error = raises(kind, call)
        found = (type(error), error.status_code, error.body["param"])
        assert found == (kind, status, param) and words in error.body["message"], (found, error.body, words)
    too_long = [embed("a dog " * 100), chat(user("the quick " * 3000))]
    assert [raises(bad, call).body["code"] for call in too_long] == ["context_length_exceeded"] * 2
    # Routes of text-embeddings-inference have its status for what is invalid.
    tei = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
    for body in ({"inputs": 3}, {"inputs": []}, {"inputs": "a", "dimensions": 10**6}):
        raises(openai.UnprocessableEntityError, lambda: tei.post("/embed", cast_to=object, body=body))
    error = raises(large, lambda: tei.post("/embed", cast_to=object, body={"inputs": "a dog " * 100, "truncate": False}))
    assert error.status_code == 413, error


def check_rate(mm, words, folder):
    """A key with more requests than it may send."""
    config = folder / "serve.toml"
    config.write_text('[[key]]\nname = "team"\nkey_env = "MM_TEST_KEY"\nrequests_per_minute = 1\n')
    process, url = start(mm, {"words": words}, ("--config", config))
    try:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
        ask = lambda: client.embeddings.create(model="words", input="a")
        ask()
        error = raises(openai.RateLimitError, ask)
        assert error.status_code == 429 and int(error.response.headers["retry-after"]) >= 1, error
        assert error.body["type"] == "rate_limit_error", error.body
    finally:
        process.terminate()
        assert process.wait(40) == 0


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
    raises(openai.BadRequestError, lambda: embeddings.embed_query(""))


def check_huggingface(url):
    client = InferenceClient(base_url=f"{url}/embed", api_key=KEY)
    vectors = np.array(client.feature_extraction("the quick fox"))
    assert abs(np.linalg.norm(vectors) - 1) < 1e-5
    error = raises(HfHubHTTPError, lambda: client.feature_extraction(""))
    assert error.response.status_code == 422 and error.response.json()["error_type"] == "Validation", error


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
