// ---- Files and the microphone ----------------------------------------------------------------------------------------
const SENT_AS_IS = /^image\/(png|jpeg|gif|webp|bmp|tiff)$/;  // the server reads these; others are drawn again as PNG
const LONGEST_RECORDING = 120;  // seconds
const kindOf = ({ type, name }) => type.startsWith('image/') ? 'image' : type.startsWith('audio/') || /\.(wav|flac|mp3|ogg|oga|m4a|aac)$/i.test(name) ? 'audio' : null;

async function drawAsPng(file) {
  const image = make('img', { src: URL.createObjectURL(file) });
  await image.decode().catch(() => { throw makeError('unreadable', { name: file.name }); });
  const canvas = make('canvas', { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext('2d').drawImage(image, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
}

/** A file as the page uses it: `data` is sent, `shown` is the address of what is shown. */
async function readMedia(file) {
  const kind = kindOf(file), { name } = file;
  const content = kind === 'image' && !SENT_AS_IS.test(file.type) ? await drawAsPng(file) : file;
  const reader = new FileReader();
  await new Promise((onload, onerror) => Object.assign(reader, { onload, onerror }).readAsDataURL(content)).catch(() => { throw makeError('unreadable', { name }); });
  return { kind, name, data: reader.result, shown: URL.createObjectURL(content) };
}

/** Samples between -1 and 1 as a WAV file of 16 bits, one channel. Its numbers are little-endian, as in every browser's memory. */
function encodeWav(blocks, rate) {
  const samples = blocks.map((block) => Int16Array.from(block, (sample) => Math.max(-1, Math.min(1, sample)) * 32767));
  const bytes = samples.reduce((sum, block) => sum + block.byteLength, 0);
  const format = new Uint32Array([16, 0x00010001 /* PCM, 1 channel */, rate, 2 * rate /* bytes per second */, 0x00100002 /* 2 bytes, 16 bits */]);
  return new File(['RIFF', new Uint32Array([36 + bytes]), 'WAVEfmt ', format, 'data', new Uint32Array([bytes]), ...samples], 'recording.wav', { type: 'audio/wav' });
}

/** Lets `button` start and stop a recording, which is given to `use` as a WAV file. */
function attachRecorder(button, task, use) {
  let finish = null, seconds = 0;  // what ends the recording that runs, and its length
  const show = (name) => setText(button.lastElementChild, name, { time: `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}` });
  const start = async () => {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true }), context = new AudioContext(), blocks = [];
    // Not an AudioWorklet: its module needs an address, and the Content-Security-Policy allows only the script of this page.
    const node = context.createScriptProcessor(4096, 1, 1);
    node.onaudioprocess = ({ inputBuffer }) => {
      blocks.push(inputBuffer.getChannelData(0).slice());
      seconds += inputBuffer.duration;
      show('recording');
      if (seconds >= LONGEST_RECORDING) finish();
    };
    context.createMediaStreamSource(stream).connect(node).connect(context.destination);  // the node writes silence there
    button.classList.add('recording');
    show('recording', seconds = 0);
    task.fail(null);
    finish = () => {
      finish = node.onaudioprocess = null;
      for (const track of stream.getTracks()) track.stop();
      context.close();
      button.classList.remove('recording');
      show('record');
      if (blocks.length) use(encodeWav(blocks, context.sampleRate));
    };
  };
  button.hidden ||= !navigator.mediaDevices;  // only for https and localhost
  button.onclick = () => {
    if (finish) return finish();
    finish = () => {};  // while the browser asks for permission
    start().catch(({ message }) => { finish = null; task.fail(makeError('noMicrophone', { reason: message })); });
  };
}

/** Opens the browser's dialog for a file of a kind. */
function chooseFile(kind, use) {
  const input = Object.assign($('file'), { accept: kind === 'image' ? 'image/*' : 'audio/*,.flac,.m4a', value: '' });
  input.onchange = () => input.files[0] && use(input.files[0]);
  input.click();
}

