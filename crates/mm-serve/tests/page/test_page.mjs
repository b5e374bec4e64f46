// Tests of the page in Chromium against mock.py:  npm install && node test_page.mjs
// CHROMIUM names another browser than /usr/bin/chromium; SHOTS=FOLDER also takes screenshots (IMAGES=FOLDER of PNG files to show in them).
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const require = createRequire(import.meta.url);
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const port = Number(process.env.PORT || 8765), home = `http://127.0.0.1:${port}/`;
const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC', 'base64');

const start = (args) => spawn('python3', [new URL('./mock.py', import.meta.url).pathname, '--port', String(port), ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
const mock = start([]);
await once(mock.stdout, 'data');
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  args: ['--no-sandbox', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'] });

let failures = 0;
async function test(name, run, { at = '', base = home, ...options } = {}) {
  if (process.env.ONLY && !name.includes(process.env.ONLY)) return;
  const context = await browser.newContext({ locale: 'en-US', permissions: ['microphone'], viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage(), problems = [];
  page.setDefaultTimeout(8000);
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('console', (message) => { if (message.type() === 'error' && !/status of \d/.test(message.text())) problems.push(message.text()); });
  try {
    await page.goto(base + at);
    await fetch(`${base}mock/log`);
    const log = async () => (await (await fetch(`${base}mock/log`)).json());
    await run(page, log);
    assert.deepEqual(problems, [], 'errors in the console');
    console.log(`ok      ${name}`);
  } catch (error) {
    failures += 1;
    console.log(`FAILED  ${name}\n${error.stack}\n${problems.join('\n')}`);
  }
  await context.close();
}

const status = (page, id, text) => page.locator(`#${id} .status`).filter({ hasText: text }).waitFor();
const results = (page) => page.locator('#results > li');
async function search(page, text) {
  await page.fill('#text', text);
  await page.keyboard.press('Enter');
}
const makeFiles = (page, bytes, name, type) => page.evaluateHandle(([data, name, type]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type }));
  return transfer;
}, [bytes.toString('base64'), name, type]);
async function drop(page, bytes = png, name = 'red.png', type = 'image/png') {
  const dataTransfer = await makeFiles(page, bytes, name, type);
  await page.dispatchEvent('body', 'dragover', { dataTransfer });
  assert.ok(await page.locator('#drop').isVisible());
  await page.dispatchEvent('body', 'drop', { dataTransfer });
  assert.ok(!await page.locator('#drop').isVisible());
}
const paste = async (page) => page.evaluate((clipboardData) => document.body.dispatchEvent(
  new ClipboardEvent('paste', { clipboardData, bubbles: true })), await makeFiles(page, png, 'pasted.png', 'image/png'));

await test('text search', async (page, log) => {
  await status(page, 'search-state', '1,234 rows, searched by text, image, or audio');
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'text');
  await search(page, 'a red bird');
  await status(page, 'search-state', '24 results in 21 ms');
  assert.equal(await results(page).count(), 24);
  assert.equal(await page.locator('#query-shown').innerText(), '“a red bird”');
  assert.match(page.url(), /#q=a\+red\+bird$/);
  assert.equal(await page.title(), 'a red bird · mm');
  assert.deepEqual(await log(), [{ path: '/search', k: 24, text: 'a red bird' }]);
  const card = results(page).nth(1);
  assert.match(await card.innerText(), /2\s+Score 0\.331\s+a cat over low hills in the year 1991\s+cat-1\s+kind\s+cat\s+year\s+1991\s+license\s+CC0\s+place\s+\{"lat"/);
  assert.equal(await results(page).nth(4).locator('audio').count(), 1);
  assert.equal(await results(page).nth(20).locator('video').count(), 1);
  await results(page).nth(8).scrollIntoViewIfNeeded();
  await results(page).nth(8).getByText('Not available').waitFor();
  await page.locator('#steps summary').click();
  assert.match(await page.locator('#steps tbody').innerText(), /image\s+exact\s+1,234\s+1,234\s+4 ms/);
  const shape = await page.locator('#results img').first().evaluate((image) => (image.width / image.height) / (image.naturalWidth / image.naturalHeight));
  assert.ok(Math.abs(shape - 1) < 0.01, `aspect ratio: ${shape}`);
});

await test('options', async (page, log) => {
  await page.click('#fields button:nth-of-type(2)');
  await page.locator('#filter').pressSequentially('> 2000');
  await page.fill('#count', '3');
  await page.check('#words');
  await search(page, 'bird');
  await status(page, 'search-state', '3 results');
  assert.deepEqual(await log(), [{ path: '/search', k: 3, filter: 'year > 2000', text: 'bird', hybrid: true }]);
  await page.click('#fields button:nth-of-type(3)');
  assert.equal(await page.inputValue('#filter'), 'year > 2000 `taken on` ');
});

await test('filter error', async (page) => {
  await page.fill('#filter', 'wrong > 3');
  await search(page, 'bird');
  await page.getByText('unknown field wrong; did you mean year?').waitFor();
  assert.equal(await page.getAttribute('#filter', 'aria-invalid'), 'true');
  await page.fill('#filter', 'year > 3');
  await page.keyboard.press('Enter');
  await status(page, 'search-state', '24 results');
  assert.ok(!await page.locator('#filter-error').isVisible());
});

await test('image dropped, words added, text replaces it', async (page, log) => {
  await status(page, 'search-state', 'rows');
  await drop(page);
  await status(page, 'search-state', '24 results');
  assert.deepEqual(await log(), [{ path: '/search', k: 24, image: `data:image/png;base64,${png.toString('base64')}` }]);
  assert.ok(await page.locator('#query-shown img').evaluate((image) => image.complete && image.naturalWidth === 10));
  await page.fill('#text', 'sky');
  await page.check('#words');
  await status(page, 'search-state', '24 results');
  await page.waitForFunction(() => document.querySelector('#query-shown').innerText.includes('with the words “sky”'));
  assert.equal((await log())[0].words, 'sky');
  await page.goBack();
  await page.waitForFunction(() => !document.querySelector('#query-shown').innerText);
  assert.equal(await page.locator('#query-shown img').count(), 1);
  await search(page, 'moon');
  await page.waitForFunction(() => document.querySelector('#query-shown').innerText === '“moon”');
});

await test('image pasted', async (page, log) => {
  await status(page, 'search-state', 'rows');
  await paste(page);
  await status(page, 'search-state', '24 results');
  assert.match((await log())[0].image, /^data:image\/png;base64,/);
});

await test('image chosen; SVG drawn as PNG; unusable file', async (page, log) => {
  const choose = async (file) => {
    const chooser = page.waitForEvent('filechooser');
    await page.click('#choose-image');
    await (await chooser).setFiles(file);
  };
  await choose({ name: 'a.svg', mimeType: 'image/svg+xml', buffer: Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10"><rect width="9" height="9"/></svg>') });
  await status(page, 'search-state', '24 results');
  assert.match((await log())[0].image, /^data:image\/png;base64,/);
  await drop(page, Buffer.from('x'), 'notes.txt', 'text/plain');
  await page.getByText('The file notes.txt cannot be used here.').waitFor();
});

await test('recorded audio', async (page, log) => {
  await page.click('#record');
  await page.locator('#record', { hasText: 'Stop (0:01)' }).waitFor();
  await page.click('#record');
  await status(page, 'search-state', '24 results');
  const sent = Buffer.from((await log())[0].audio.replace(/^data:audio\/wav;base64,/, ''), 'base64');
  assert.equal(sent.toString('latin1', 0, 4) + sent.toString('latin1', 8, 16), 'RIFFWAVEfmt ');
  assert.deepEqual([sent.readUInt16LE(20), sent.readUInt16LE(22), sent.readUInt16LE(34)], [1, 1, 16]);
  assert.equal(sent.readUInt32LE(40), sent.length - 44);
  let loudest = 0;
  for (let i = 44; i < sent.length; i += 2) loudest = Math.max(loudest, Math.abs(sent.readInt16LE(i)));
  assert.ok(loudest > 1000, `not silent: ${loudest}`);
  const player = page.locator('#query-shown audio');
  await page.waitForFunction(() => document.querySelector('#query-shown audio').duration > 1);
  assert.ok(await player.isVisible());
});

await test('more like this, back', async (page, log) => {
  await search(page, 'bird');
  await status(page, 'search-state', '24 results');
  await page.getByRole('button', { name: 'More like this: cat-1', exact: true }).click();
  await page.getByText('Similar to cat-1').waitFor();
  assert.equal((await log()).at(-1).like, 'cat-1');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'query-shown');
  assert.equal(await page.locator('#query-shown img').count(), 1);
  await page.goBack();
  await page.locator('#query-shown', { hasText: '“bird”' }).waitFor();
  assert.equal(await page.inputValue('#text'), 'bird');
});

await test('a link with a query; Back and tabs', async (page, log) => {
  await status(page, 'search-state', '5 results');
  assert.equal(await page.inputValue('#text'), 'red moon');
  assert.equal(await page.inputValue('#filter'), 'year > 1');
  await page.click('#tab-ask');
  assert.match(page.url(), /tab=ask&q=red\+moon/);
  await page.goBack();
  assert.ok(await page.locator('#search').isVisible());
  assert.equal(await results(page).count(), 5);
  await page.click('#clear');
  await page.waitForFunction(() => !document.querySelector('#results').children.length);
  await page.goBack();
  await status(page, 'search-state', '5 results');
}, { at: '#q=red+moon&filter=year+%3E+1&k=5' });

await test('tabs by keyboard', async (page) => {
  await page.focus('#tab-search');
  await page.keyboard.press('ArrowRight');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'tab-ask');
  assert.ok(await page.locator('#ask').isVisible());
  await page.keyboard.press('Home');
  assert.ok(await page.locator('#search').isVisible());
  await page.keyboard.press('End');
  assert.equal(await page.getAttribute('#tab-ask', 'aria-selected'), 'true');
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'text');
});

await test('a new search cancels the old one; cancel', async (page) => {
  await search(page, 'slow');
  await status(page, 'search-state', 'Searching…');
  await search(page, 'quick');
  await status(page, 'search-state', '24 results');
  await search(page, 'slow');
  await page.click('#search-state button');
  await status(page, 'search-state', 'Cancelled');
  assert.equal(await results(page).count(), 0);
  await search(page, 'nothing');
  await status(page, 'search-state', 'No results');
});

await test('busy: repeated; overload: given up', async (page, log) => {
  await search(page, 'busy');
  await status(page, 'search-state', 'The server is busy. Trying again in 1 s (1 of 3).');
  await status(page, 'search-state', '(2 of 3)');
  await status(page, 'search-state', '24 results');
  assert.equal((await log()).length, 3);
  await search(page, 'overload');
  await status(page, 'search-state', 'still loading. Trying again in 1 s (3 of 3)');
  await page.locator('#search-state .error', { hasText: 'the model is still loading' }).waitFor();
  assert.equal((await log()).length, 4);
});

await test('key', async (page) => {
  await page.locator('#key-dialog').waitFor();
  await page.fill('#key', 'guess');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('#key-dialog').open && !document.querySelector('#key').value);
  await page.fill('#key', 'secret');
  await page.keyboard.press('Enter');
  await search(page, 'bird');
  await status(page, 'search-state', '24 results');
  await page.waitForFunction(() => /^blob:/.test(document.querySelector('#results img').src) && document.querySelector('#results img').naturalWidth);
  assert.equal(await page.evaluate(() => document.querySelector('#results li:last-child img').src), '', 'not fetched before it is near');
  await page.getByRole('button', { name: 'Load audio' }).first().click();
  await page.waitForFunction(() => document.querySelector('#results audio')?.duration === 1);
  assert.equal(await page.evaluate(() => sessionStorage.getItem('key')), 'secret');
  await page.reload();
  await status(page, 'search-state', '24 results');
  assert.ok(!await page.locator('#key-dialog').isVisible());
}, { base: `http://127.0.0.1:${port + 1}/` });

await test('key refused', async (page) => {
  await page.locator('#key-dialog').waitFor();
  await page.keyboard.press('Escape');
  await page.locator('#index-state .error', { hasText: 'this server needs a key' }).waitFor();
  await page.locator('#index-state').getByRole('button', { name: 'Try again' }).click();
  await page.fill('#key', 'secret');
  await page.keyboard.press('Enter');
  await status(page, 'search-state', 'rows');
}, { base: `http://127.0.0.1:${port + 1}/` });

await test('no index; one task', async (page) => {
  await page.getByText('mm index build FOLDER --model NAME --store STORE').waitFor();
  assert.ok(!await page.locator('#search-form').isVisible());
  await page.click('#tab-ask');
  assert.ok(await page.locator('#answer').isVisible());
  assert.deepEqual(await page.locator('#caption, #chat, #transcribe').evaluateAll((all) => all.map((e) => e.hidden)), [true, true, true]);
  assert.equal(await page.locator('#answer select').count(), 0);
}, { base: `http://127.0.0.1:${port + 2}/` });

await test('answer with heat map, description', async (page, log) => {
  await page.locator('#answer').waitFor();
  await page.fill('#question', 'what color?');
  await page.keyboard.press('Enter');
  await page.getByText('Choose an image first.').waitFor();
  await paste(page);
  await page.locator('#ask-image').waitFor();
  await page.click('#answer button.main');
  await page.locator('#answer-text', { hasText: 'red' }).waitFor();
  const [sent] = await log();
  assert.deepEqual([sent.model, sent.question, sent.explain, sent.image.slice(0, 22)], ['blip-vqa', 'what color?', true, 'data:image/png;base64,']);
  assert.equal(await page.locator('#answer-bars li').count(), 5);
  await page.locator('#heat').waitFor();
  assert.match(await page.locator('#answer-bars').innerText(), /red\s+0\.810\s+orange\s+0\.110/);
  await page.uncheck('#show-heat');
  assert.ok(!await page.locator('#heat').isVisible());
  await page.selectOption('#answer select', 'vilt');
  assert.ok(!await page.locator('#explain-option').isVisible());
  await page.click('#describe');
  await page.getByText('a red bird over low hills').waitFor();
}, { at: '#tab=ask' });

await test('conversation: streamed, stopped, new', async (page, log) => {
  await page.locator('#chat').waitFor();
  await drop(page);
  await page.fill('#message', 'What is this?');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => /^The image shows/.test(document.querySelector('#log .assistant .typed')?.textContent));
  assert.ok(await page.locator('#chat-state button').isVisible(), 'shown while it is written');
  await page.waitForFunction(() => document.querySelector('#chat-spoken').textContent.endsWith('the sky is clear. '));
  await page.fill('#message', 'long');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelectorAll('#log .assistant')[1]?.textContent.includes('clear.'));
  await page.click('#chat-state button');
  await status(page, 'chat-state', 'Stopped');
  await page.waitForTimeout(500);
  const sent = await log();
  assert.equal(sent[0].messages[0].content[0].image_url.url.slice(0, 15), 'data:image/png;');
  assert.deepEqual(sent[1].messages.map(({ role }) => role), ['user', 'assistant', 'user']);
  assert.ok(sent.at(-1).stopped, 'the server sees that the stream was closed');
  await page.click('#new-chat');
  assert.equal(await page.locator('#log > *').count(), 0);
}, { at: '#tab=ask' });

await test('transcription of a file and of a recording', async (page, log) => {
  await page.locator('#transcribe').waitFor();
  await drop(page, Buffer.from('RIFF....WAVE'), 'speech.wav', 'audio/wav');
  await page.locator('#transcript', { hasText: 'a small red bird sings' }).waitFor();
  await page.click('#speech-record');
  await page.locator('#speech-record', { hasText: 'Stop (0:01)' }).waitFor();
  await page.click('#speech-record');
  await page.waitForFunction(() => document.querySelector('#transcript').textContent && document.querySelector('#speech-audio').duration > 1);
  assert.deepEqual(await log(), [1, 2].map(() => ({ path: '/v1/audio/transcriptions', wav: true, model: true })));
}, { at: '#tab=ask' });

await test('Chinese', async (page) => {
  await status(page, 'search-state', '1,234 行，可用文本、图像或音频进行跨模态检索');
  assert.equal(await page.getAttribute('html', 'lang'), 'zh-Hans');
  await search(page, '红色的鸟');
  await status(page, 'search-state', '24 个结果，用时 21 ms');
  await page.click('#language');
  await status(page, 'search-state', '24 results in 21 ms');
  assert.match(await results(page).first().innerText(), /Score 0\.342/);
}, { locale: 'zh-CN' });

const check = async (page, name) => {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
  assert.deepEqual(violations.map(({ id, nodes }) => `${name}: ${id}: ${nodes.map((node) => node.html).slice(0, 3)}`), []);
  const width = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(width <= 0, `${name}: wider than the window by ${width}`);
};
for (const colorScheme of ['light', 'dark']) {
  for (const width of [360, 1280]) {
    await test(`accessibility, ${colorScheme}, ${width} px`, async (page) => {
      await status(page, 'search-state', 'rows');
      await check(page, 'start');
      await page.locator('#options').evaluate((options) => { options.open = true; });
      await page.fill('#filter', 'wrong');
      await search(page, 'bird');
      await page.locator('#filter-error').waitFor();
      await check(page, 'error');
      await page.fill('#filter', '');
      await search(page, 'a long query that needs more than one line on a phone, since it says everything');
      await status(page, 'search-state', '24 results');
      await page.locator('#steps summary').click();
      await check(page, 'results');
      await page.click('#tab-ask');
      await check(page, 'ask, empty');
      await drop(page);
      await page.fill('#question', 'what color?');
      await page.click('#answer button.main');
      await page.locator('#answer-bars li').first().waitFor();
      await page.fill('#message', 'What is this?');
      await page.keyboard.press('Enter');
      await page.waitForFunction(() => document.querySelector('#chat-spoken').textContent);
      await check(page, 'ask');
    }, { colorScheme, viewport: { width, height: 800 } });
  }
}

if (process.env.SHOTS) {
  mock.kill();
  await once(mock, 'exit');
  const shown = start(process.env.IMAGES ? ['--images', process.env.IMAGES] : []);
  await once(shown.stdout, 'data');
  const shoot = (page, name, fullPage = false) => page.screenshot({ path: `${process.env.SHOTS}/${name}.png`, fullPage });
  const picture = async () => Buffer.from(await (await fetch(`${home}media?id=bird-0&field=image`)).arrayBuffer());
  const ask = async (page) => {
    await page.locator('#answer').waitFor();
    await drop(page, await picture(), 'bird.png');
    await page.fill('#question', 'What color is the bird?');
    await page.click('#answer button.main');
    await page.locator('#answer-bars li').first().waitFor();
    await page.click('#describe');
    await page.locator('#caption-text', { hasText: 'a' }).waitFor();
    await page.fill('#message', 'What does the image show?');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.querySelector('#chat-spoken').textContent);
  };
  const wait = async (page) => {
    await page.waitForFunction(() => /24|结果/.test(document.querySelector('#search-state .status').textContent) && [...document.querySelectorAll('#results img')].slice(0, 4).every((i) => i.complete));
    await page.waitForTimeout(300);
  };
  const one = { width: 390, height: 844 };
  for (const [name, options, fullPage] of [
    ['desktop-light', {}], ['desktop-dark', { colorScheme: 'dark' }], ['phone', { viewport: one }], ['chinese', { locale: 'zh-CN' }], ['phone-dark', { viewport: one, colorScheme: 'dark' }], ['wide', { viewport: { width: 1920, height: 1000 } }]]) {
    await test(`screenshot ${name}`, async (page) => { await wait(page); await shoot(page, name, fullPage); }, { ...options, at: '#q=a+red+bird&filter=year+%3E+1990&words=1' });
  }
  await test('screenshot start', async (page) => { await status(page, 'search-state', 'rows'); await shoot(page, 'start'); });
  await test('screenshot image query', async (page) => {
    await status(page, 'search-state', 'rows');
    await drop(page, await picture(), 'bird.png');
    await wait(page);
    await page.mouse.wheel(0, 500);
    await page.waitForTimeout(300);
    await shoot(page, 'image-query');
    await page.evaluate(() => document.querySelector('#steps').scrollIntoView());
    await page.click('#steps summary');
    await shoot(page, 'steps');
  });
  await test('screenshot audio query', async (page) => {
    await page.click('#record');
    await page.waitForTimeout(1200);
    await shoot(page, 'recording');
    await page.click('#record');
    await wait(page);
    await shoot(page, 'audio-query');
  });
  await test('screenshot filter error', async (page) => { await page.locator('#filter-error').waitFor(); await shoot(page, 'filter-error'); }, { at: '#q=bird&filter=kind+%3D+1+and+wrong+%3E+3' });
  for (const [name, options] of [['ask', {}], ['ask-dark', { colorScheme: 'dark' }], ['ask-phone', { viewport: one }], ['ask-chinese', { locale: 'zh-CN' }]]) {
    await test(`screenshot ${name}`, async (page) => { await ask(page); await page.evaluate(() => scrollTo(0, 0)); await shoot(page, name, true); }, { ...options, at: '#tab=ask' });
  }
  await test('screenshot ask, empty', async (page) => { await page.locator('#answer').waitFor(); await shoot(page, 'ask-empty'); }, { at: '#tab=ask' });
  await test('screenshot key', async (page) => { await page.locator('#key-dialog').waitFor(); await shoot(page, 'key'); }, { base: `http://127.0.0.1:${port + 1}/` });
  await test('screenshot no index', async (page) => { await page.locator('#no-index').waitFor(); await shoot(page, 'no-index'); }, { base: `http://127.0.0.1:${port + 2}/` });
  shown.kill();
}
mock.kill();
await browser.close();
console.log(failures ? `${failures} failed` : 'all passed');
process.exit(failures ? 1 : 0);
