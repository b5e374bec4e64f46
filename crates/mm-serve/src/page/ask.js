// ---- Ask -------------------------------------------------------------------------------------------------------------
const tasks = { caption: new Task('caption-state'), answer: new Task('answer-state'), transcribe: new Task('transcribe-state'), chat: new Task('chat-state', { cancel: 'stop', ended: 'stopped' }) };
let choices = null, askedImage = null;  // which model does each of these; the image that is asked about
let chat = [];  // messages as the server takes them; the first may have an image

const chatsAboutImages = ({ capabilities, modalities }) => capabilities.includes('chat') && modalities.includes('image');

/** Shows the models with a capability in `row`, to choose from where there are several. */
function addModelChoice(capability, row) {
  const able = models.filter(({ capabilities }) => capabilities.includes(capability));
  const select = make('select', {}, ...able.map(({ id }) => make('option', { value: id, textContent: id })));
  if (able.length > 1) row.append(make('label', { className: 'model' }, make('span', { t: 'model' }), select));
  else if (able.length) row.append(make('span', { className: 'soft', textContent: able[0].id }));
  $(capability).hidden = !able.length || capability === 'caption';  // an image comes first
  return { able: able.length > 0, select, chosen: () => able[Math.max(0, select.selectedIndex)] };
}

function prepareAsk({ data }) {
  models = data;
  choices = { caption: addModelChoice('caption', $('caption')) };
  for (const name of ['answer', 'chat', 'transcribe']) choices[name] = addModelChoice(name, $(name).querySelector('.row'));
  const seesImages = choices.answer.able || choices.caption.able || models.some(chatsAboutImages);
  const others = choices.answer.able || choices.chat.able || choices.transcribe.able;
  $('image-card').hidden = !seesImages;
  $('tasks').hidden = !seesImages && !others;
  $('no-tasks').hidden = seesImages || others;
  $('tasks').classList.toggle('two', seesImages && others);
  const showExplain = choices.answer.select.onchange = () => { $('explain-option').hidden = !choices.answer.chosen()?.capabilities.includes('explain'); };
  showExplain();
}

async function usePicture(file) {
  const isShown = !$('image-card').hidden;
  if (!isShown || kindOf(file) !== 'image') return tasks[isShown ? 'caption' : 'transcribe'].fail(makeError('unsupported', { name: file.name }));
  const media = await readMedia(file).catch((error) => tasks.caption.fail(error));
  if (!media) return;
  askedImage = media;
  for (const task of [tasks.caption, tasks.answer]) task.reset();
  Object.assign($('ask-image'), { src: askedImage.shown, alt: askedImage.name });
  $('stage').hidden = $('image-buttons').hidden = false;
  $('caption').hidden = !choices.caption.able;
  $('ask-choose').hidden = true;
  setPlain($('caption-text'), '');
  showAnswer(null);
}

async function describe() {
  setPlain($('caption-text'), '');
  const answer = await tasks.caption.send('working', 'caption', { json: { model: choices.caption.chosen().id, image: askedImage.data } });
  if (answer) setPlain($('caption-text'), answer.finished === false ? `${answer.text} …` : answer.text);
}

async function answerQuestion() {
  const question = $('question').value.trim(), { id, capabilities } = choices.answer.chosen(), explain = capabilities.includes('explain') && $('explain').checked;
  showAnswer(null);
  if (!askedImage) return tasks.answer.fail(makeError('needImage'), $('ask-choose').focus());
  const json = { model: id, image: askedImage.data, question, ...(explain ? { explain } : {}) };
  showAnswer(await tasks.answer.send(explain ? 'explaining' : 'answering', 'answer', { json }));
}

/** Shows an answer, its scores as bars, and its heat map over the image; or none. */
function showAnswer(answer) {
  const { answer: best = '', results = [], heat_map: heatMap } = answer || {};
  setPlain($('answer-text'), best);
  $('answer-bars').replaceChildren(...results.filter(({ score }) => Number.isFinite(score)).slice(0, 8).map(({ answer: text, score }) => {
    const bar = make('li', {}, make('span', { textContent: text }), make('span', { textContent: formatNumber(score, { minimumFractionDigits: 3 }) }));
    bar.style.setProperty('--share', Math.max(0, Math.min(1, score)));
    return bar;
  }));
  $('heat').src = heatMap || '';
  $('heat').hidden = $('heat-option').hidden = !heatMap;
}

function addMessage(role, text, image) {
  const message = make('div', { className: `message ${role}` }, make('span', { className: 'spoken', t: role }),
    image ? make('img', { src: image.shown, alt: image.name }) : null, make('div', { className: 'typed', textContent: text }));
  $('log').append(message);
  $('log').scrollTop = $('log').scrollHeight;
  return message;
}

async function sendMessage() {
  const text = $('message').value.trim(), model = choices.chat.chosen(), messages = chat;
  if (!text || messages.at(-1)?.role === 'user') return;  // empty, or the last one is being answered
  const image = !messages.length && chatsAboutImages(model) ? askedImage : null;
  messages.push({ role: 'user', content: image ? [{ type: 'image_url', image_url: { url: image.data } }, { type: 'text', text }] : text });
  const asked = addMessage('user', text, image), answered = addMessage('assistant', ''), typed = answered.lastChild, log = $('log');
  $('message').value = '';
  await tasks.chat.run('answering', async (signal) => {
    const response = await request('v1/chat/completions', { json: { model: model.id, messages, stream: true }, signal, task: tasks.chat });
    for await (const { error, choices: parts } of readEvents(response)) {
      if (error) throw new Error(error.message);
      const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      typed.append(parts?.[0]?.delta?.content ?? '');
      if (follows) log.scrollTop = log.scrollHeight;
    }
  });
  if (messages !== chat) return;  // a new conversation began
  if (typed.textContent) {
    chat.push({ role: 'assistant', content: typed.textContent });
    setPlain($('chat-spoken'), typed.textContent);
  } else {  // as if nothing had been sent
    chat.pop();
    [asked, answered].forEach((message) => message.remove());
    $('message').value ||= text;
  }
}

function newChat() {
  chat = [];
  tasks.chat.reset();
  $('log').replaceChildren();
  $('message').focus();
}

async function transcribe(file) {
  if (kindOf(file) !== 'audio') return tasks.transcribe.fail(makeError('unsupported', { name: file.name }));
  const form = new FormData();
  form.append('model', choices.transcribe.chosen().id);
  form.append('file', file, file.name);
  URL.revokeObjectURL($('speech-audio').src);
  Object.assign($('speech-audio'), { src: URL.createObjectURL(file), hidden: false });
  setPlain($('transcript'), '');
  const answer = await tasks.transcribe.send('transcribing', 'v1/audio/transcriptions', { form });
  if (answer) setPlain($('transcript'), answer.text);
}

