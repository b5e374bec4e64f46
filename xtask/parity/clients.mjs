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
assert.deepEqual(names.sort(), ["chat", "clip", "ranker", "whisper", "words"]);

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

await assert.rejects(client.embeddings.create({ model: "wrods", input: "a" }), OpenAI.NotFoundError);
await assert.rejects(client.embeddings.create({ model: "words", input: [] }), (error) => {
  assert(error instanceof OpenAI.BadRequestError);
  return error.param === "input";
});
const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "no", maxRetries: 0 });
await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
console.log("openai-node is served");
