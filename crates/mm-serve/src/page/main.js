// ---- The whole page --------------------------------------------------------------------------------------------------
/** Uses a file that was dropped or pasted, in the tab that is open. */
function useFile(file) {
  if (tab === 'search' && index) searchByFile(file);
  else if (tab === 'ask' && choices) (kindOf(file) === 'audio' && choices.transcribe.able ? transcribe : usePicture)(file);
}

/** Calls `action` for an event that the browser would else handle. */
function replace(event, action) { event.preventDefault(); action(); }

for (const [name, other] of [['search', 'ask'], ['ask', 'search']]) {
  $(`tab-${name}`).onclick = () => openTab(name);
  $(`tab-${name}`).onkeydown = (event) => {
    const to = { ArrowLeft: other, ArrowRight: other, Home: 'search', End: 'ask' }[event.key];
    if (to) replace(event, () => openTab(to) || $(`tab-${to}`).focus());
  };
}
addEventListener('popstate', followAddress);
addEventListener('keydown', (event) => {
  const isTyped = event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, textarea, select, dialog');
  if (event.key === '/' && !isTyped) replace(event, () => openTab('search') || $('text').focus());
});
let isOwn = false;  // whether an image of this page is dragged
addEventListener('dragstart', () => { isOwn = true; });
addEventListener('dragend', () => { isOwn = false; });
addEventListener('dragover', (event) => { if (!isOwn && event.dataTransfer.types.includes('Files')) replace(event, () => { $('drop').hidden = false; }); });
addEventListener('dragleave', (event) => { if (!event.relatedTarget) $('drop').hidden = true; });
addEventListener('drop', (event) => {
  $('drop').hidden = true;
  if (!isOwn && event.dataTransfer.files.length) replace(event, () => useFile(event.dataTransfer.files[0]));
});
addEventListener('paste', ({ clipboardData: { files, types } }) => { if (files.length && !types.includes('text/plain')) useFile(files[0]); });
$('language').onclick = () => setLanguage(1 - language);
$('search-form').onsubmit = (event) => replace(event, submitSearch);
$('words').onchange = $('count').onchange = () => hasQuery(query) && submitSearch();
$('clear').onclick = () => {
  writeAddress({ ...readOptions(), text: '' }, 'search');
  $('text').value = '';
  clearSearch();
  $('text').focus();
};
$('choose-image').onclick = () => chooseFile('image', searchByFile);
$('choose-audio').onclick = () => chooseFile('audio', searchByFile);
$('ask-choose').onclick = $('ask-change').onclick = () => chooseFile('image', usePicture);
$('describe').onclick = describe;
$('answer').onsubmit = (event) => replace(event, answerQuestion);
$('chat').onsubmit = (event) => replace(event, sendMessage);
$('message').onkeydown = (event) => {  // while composing, Enter ends a word of an input method
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) replace(event, sendMessage);
};
$('new-chat').onclick = newChat;
$('speech-choose').onclick = () => chooseFile('audio', transcribe);
attachRecorder($('speech-record'), tasks.transcribe, transcribe);

/** Loads what a tab needs, with a button to try again. */
async function load(task, path, prepare) {
  let isMissing = false;
  const answer = await task.send('loading', path, {}, ({ status }) => { isMissing = path === 'index' && status === 404; return isMissing; });
  if (answer) return prepare(answer);
  if (isMissing) return void ($('no-index').hidden = false);
  const again = makeButton('again', () => load(task, path, prepare, again.remove()));
  task.holder.append(again);
}

setLanguage(language);
followAddress();
load(new Task('index-state'), 'index', prepareSearch);
load(new Task('models-state'), 'v1/models', prepareAsk);
