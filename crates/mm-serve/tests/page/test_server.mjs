// Tests of the page in Chromium against `mm serve` itself:  npm install && node test_server.mjs MM CLIP BLIP
// CLIP and BLIP are folders of tiny checkpoints (families/clip-eos-gelu of mm-repr's test fixtures, blip-vqa of mm-reason's), so that
// what is found and answered says nothing; that it is found, shown and refused is what counts.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, deflateSync } from 'node:zlib';

const require = createRequire(import.meta.url);
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const [mm, clip, blip] = process.argv.slice(2);
assert.ok(blip, 'usage: node test_server.mjs MM CLIP BLIP');

/** A PNG of 40 × 40 pixels with a gradient of its own. */
function png(number) {
  const chunk = (name, data) => {
    const body = Buffer.concat([Buffer.from(name), data]), ends = Buffer.alloc(8);
    ends.writeUInt32BE(data.length, 0), ends.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([ends.subarray(0, 4), body, ends.subarray(4)]);
  };
  const header = Buffer.from([0, 0, 0, 40, 0, 0, 0, 40, 8, 2, 0, 0, 0]);
  const rows = Array.from({ length: 40 }, (_, y) => [0, ...Array.from({ length: 40 }, (_, x) => [x * 6, (y * number) % 256, (number * 37) % 256]).flat()]);
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', header), chunk('IDAT', deflateSync(Buffer.from(rows.flat()))), chunk('IEND', Buffer.alloc(0))]);
}

const folder = mkdtempSync(join(tmpdir(), 'mm-page-')), images = Array.from({ length: 9 }, (_, n) => png(n));
let server, browser, failures = 0;
try {
  const rows = images.map((image, n) => {
    writeFileSync(join(folder, `${n}.png`), image);
    return JSON.stringify({ id: `row ${n}`, image: `${n}.png`, text: n % 2 ? 'an odd dog' : 'an even cat', year: 2000 + n });
  });
  writeFileSync(join(folder, 'rows.jsonl'), rows.join('\n'));
  execFileSync(mm, ['index', 'build', 'rows.jsonl', '--model', clip, '--modality', 'image', '--store', 'photos.index'], { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
  server = spawn(mm, ['serve', '--model', clip, '--model', blip, '--store', 'photos.index', '--port', '0', '--json', '--quiet'], { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = await once(server.stdout, 'data'), home = JSON.parse(line).address;
  for (let tries = 0; !(await fetch(`${home}/ready`)).ok; tries += 1) {
    assert.ok(tries < 600, 'the server is not ready');
    await new Promise((done) => setTimeout(done, 100));
  }
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox'] });

  const test = async (name, at, run) => {
    const context = await browser.newContext({ locale: 'en-US', viewport: { width: 1280, height: 900 } });
    const page = await context.newPage(), problems = [];
    page.setDefaultTimeout(15000);
    page.on('pageerror', (error) => problems.push(String(error)));
    page.on('console', (message) => { if (message.type() === 'error' && !/status of \d/.test(message.text())) problems.push(message.text()); });
    try {
      await page.goto(`${home}/${at}`);
      await run(page);
      assert.deepEqual(problems, [], 'errors in the console');
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] }));
      assert.deepEqual(violations.map(({ id }) => id), []);
      console.log(`ok      ${name}`);
    } catch (error) {
      failures += 1;
      console.log(`FAILED  ${name}\n${error.stack}\n${problems.join('\n')}`);
    }
    if (process.env.SHOTS) await page.screenshot({ path: join(process.env.SHOTS, `server-${name.replaceAll(' ', '-')}.png`) });
    await context.close();
  };
  const results = (page) => page.locator('#results > li');
  const state = (page, text) => page.locator('#search-state .status').filter({ hasText: text }).waitFor();
  const drop = async (page, bytes) => {
    const dataTransfer = await page.evaluateHandle((data) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], 'dropped.png', { type: 'image/png' }));
      return transfer;
    }, bytes.toString('base64'));
    await page.dispatchEvent('body', 'dragover', { dataTransfer });
    await page.dispatchEvent('body', 'drop', { dataTransfer });
  };

  await test('words and a filter', '', async (page) => {
    await state(page, '9 rows');
    await page.fill('#text', 'a dog');
    await page.keyboard.press('Enter');
    await state(page, '9 results');
    const image = results(page).first().locator('img');
    await page.waitForFunction((element) => element.complete && element.naturalWidth === 40, await image.elementHandle());
    await page.locator('#options').evaluate((options) => { options.open = true; });
    await page.fill('#filter', 'year >= 2006');
    await page.keyboard.press('Enter');
    await state(page, '3 results');
    await page.fill('#filter', 'yaer > 1');
    await page.keyboard.press('Enter');
    await page.locator('#filter-error', { hasText: 'year' }).waitFor();
  });
  await test('an image that is dropped is found', '', async (page) => {
    await state(page, '9 rows');
    await drop(page, images[4]);
    await state(page, '9 results');
    assert.match(await results(page).first().innerText(), /row 4/);
    assert.match(await results(page).first().innerText(), /Score 1\.00/);
  });
  await test('a question is answered', '#tab=ask', async (page) => {
    await page.locator('#answer').waitFor();
    await drop(page, images[7]);
    await page.locator('#ask-image').waitFor();
    await page.fill('#question', 'what color?');
    await page.click('#answer button.main');
    await page.locator('#answer-bars li').first().waitFor();
  });
} finally {
  await browser?.close();
  server?.kill();
  rmSync(folder, { recursive: true });
}
console.log(failures ? `${failures} failed` : 'all passed');
process.exit(failures ? 1 : 0);
