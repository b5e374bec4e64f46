// ---- Server ----------------------------------------------------------------------------------------------------------
const ATTEMPTS = 3;  // how often a request is repeated when the server is busy
let key = sessionStorage.getItem('key'), keyAsked = null;  // keyAsked: the promise of the dialog while it is open

/** Asks for the key. Requests that fail at the same time wait for the same dialog. */
function askKey(message) {
  keyAsked ??= new Promise((resolve, reject) => {
    const dialog = $('key-dialog');
    setPlain($('key-message'), message);
    $('key').value = '';
    $('key-form').onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem('key', key = $('key').value);
      resolve();
      dialog.close();
    };
    $('key-cancel').onclick = () => dialog.close();
    dialog.onclose = () => reject(new Error(message));
    dialog.showModal();
  }).finally(() => { keyAsked = null; });
  return keyAsked;
}

function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, seconds * 1000);
    signal?.addEventListener('abort', () => reject(signal.reason));
  });
}

/** Sends a request: POST where `json` or `form` is given, else GET. Asks for the key, and waits where the server is busy. */
async function request(path, { json, form, signal, task } = {}) {
  const body = json ? JSON.stringify(json) : form;
  for (let attempt = 1; ;) {
    const keyUsed = key, headers = { ...(key && { Authorization: `Bearer ${key}` }), ...(json && { 'Content-Type': 'application/json' }) };
    const response = await fetch(path, { method: body ? 'POST' : 'GET', headers, body, signal }).catch((error) => {
      throw signal?.aborted ? error : makeError('unreachable');
    });
    if (response.ok) return response;
    const { error } = await response.json().catch(() => ({})), { status } = response;
    const message = error?.message || `${status} ${response.statusText}`;
    if (status === 401) await (key === keyUsed && askKey(message));
    else if ([429, 503].includes(status) && attempt <= ATTEMPTS) {
      const seconds = Math.min(60, Math.max(1, Math.ceil(Number(response.headers.get('Retry-After')) || 2)));
      task?.say(status === 429 ? 'busy' : 'notReady', { seconds, attempt, attempts: ATTEMPTS });
      await sleep(seconds, signal);
      task?.say(task.doing);
      attempt += 1;
    } else throw Object.assign(new Error(message), { status, param: error?.param });
  }
}

/** The events of a stream (server-sent events), each parsed as JSON, up to `[DONE]`. */
async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let waiting = ''; ;) {
    const { done, value } = await reader.read();
    const blocks = (waiting + (done ? '\n\n' : value)).split(/\r?\n\r?\n/);
    waiting = blocks.pop();
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trim()).join('\n');
      if (data === '[DONE]') return;
      if (data) yield JSON.parse(data);
    }
    if (done) throw makeError('cutOff');
  }
}

