// openai-node against `mm serve`, unchanged: node clients.mjs URL KEY IMAGE AUDIO, with the models that clients.py serves.
import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);
const OpenAI = require("openai").default;
const [url, key, image, audio] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });

const input = ["the quick fox", "a lazy dog"];
const vectors = await client.embeddings.create({ model: "words", input }); // asks for base64 by itself
const numbers = await client.embeddings.create({ model: "words", input, encoding_format: "float" });
assert.equal(vectors.data.length, 2);
vectors.data.forEach(({ embedding }, row) =>
  embedding.forEach((value, i) => assert(Math.abs(value - numbers.data[row].embedding[i]) < 1e-6)));

const names = [];
for await (const model of client.models.list()) names.push(model.id);
assert.deepEqual(names.sort(), ["chat", "clip", "ranker", "sounds", "strict", "whisper", "words"]);

const uri = `data:image/png;base64,${fs.readFileSync(image).toString("base64")}`;
const content = [{ type: "image_url", image_url: { url: uri } }, { type: "text", text: "the quick" }];
const options = { model: "chat", messages: [{ role: "user", content }], temperature: 0, max_tokens: 8 };
const whole = await client.chat.completions.create(options);
let text = "";
for await (const part of await client.chat.completions.create({ ...options, stream: true })) {
  text += part.choices[0].delta.content ?? "";
}
assert.equal(text, whole.choices[0].message.content);

const transcript = await client.audio.transcriptions.create({ model: "whisper", file: fs.createReadStream(audio) });
assert.equal(typeof transcript.text, "string");

// Each bad input has the class of its status, and the field as `param`.
const embed = (input, more) => client.embeddings.create({ model: "words", input, ...more });
const chat = (more) => client.chat.completions.create({ ...options, ...more });
const noImage = { type: "image_url", image_url: { url: "data:image/png;base64,bm90IGFuIGltYWdl" } };
const long = "the quick ".repeat(3000);
for (const [kind, status, param, call] of [
  [OpenAI.NotFoundError, 404, "model", () => embed("a", { model: "wrods" })],
  [OpenAI.BadRequestError, 400, "input", () => embed([])],
  [OpenAI.BadRequestError, 400, "input", () => embed(3)],
  [OpenAI.BadRequestError, 400, "input", () => embed("a dog ".repeat(100))],
  [OpenAI.BadRequestError, 400, "input[0].image", () => embed([{ image: "####" }], { model: "clip" })],
  [OpenAI.BadRequestError, 400, "messages[0].content[0].image_url", () => chat({ messages: [{ role: "user", content: [noImage] }] })],
  [OpenAI.BadRequestError, 400, "messages[0].role", () => chat({ messages: [{ role: "robot", content: "a" }] })],
  [OpenAI.BadRequestError, 400, "messages", () => chat({ messages: [{ role: "user", content: long }] })],
  [OpenAI.APIError, 413, "n", () => chat({ n: 10 ** 6 })],
]) {
  await assert.rejects(call, (error) => {
    assert(error instanceof kind, `${error}`);
    assert.deepEqual([error.status, error.param], [status, param], `${error}`);
    return true;
  });
}
const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "no", maxRetries: 0 });
await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
console.log("openai-node is served");
