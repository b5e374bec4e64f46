// ---- Search ----------------------------------------------------------------------------------------------------------
const known = new Map();  // id → result, to show the row that others are similar to
const searchTask = new Task('search-state');

function fillForm({ text, filter, count, words }) {
  for (const [id, value] of Object.entries({ text, filter, count })) $(id).value = value;
  $('words').checked = words && index.words;
  if (filter) $('options').open = true;
}

const readOptions = () => ({ filter: $('filter').value.trim(), count: readCount($('count').value), words: $('words').checked && index.words });

/** Searches for what the form says: its text, or the file or row of the current query, to which its text may add words. */
function submitSearch() {
  const text = $('text').value.trim(), options = readOptions();
  const keeps = (query?.media || query?.like) && (!text || options.words);
  if (text || keeps) return startSearch({ ...options, text, ...(keeps ? { like: query.like, media: query.media } : {}) });
  searchTask.say('emptyQuery');
  $('text').focus();
}

function startSearch(wanted) { writeAddress(wanted, 'search'); fillForm(wanted); return runSearch(wanted); }

async function searchByFile(file) {
  if (!index.modalities.includes(kindOf(file))) return searchTask.fail(makeError('unsupported', { name: file.name }));
  const media = await readMedia(file).catch((error) => searchTask.fail(error));
  if (!media) return;
  media.number = ++lastKept;
  kept.set(media.number, media);
  URL.revokeObjectURL(kept.get(lastKept - MOST_KEPT)?.shown);
  kept.delete(lastKept - MOST_KEPT);
  startSearch({ ...readOptions(), text: '', media });
}

function searchBody({ text, filter, count, words, like, media }) {
  const body = { k: Math.min(count, index.max_results || count) }, withWords = words && index.words && text;
  if (filter) body.filter = filter;
  if (media) body[media.kind] = media.data;
  else if (like) body.like = like;
  else if (index.modalities.includes('text')) return { ...body, text, ...(withWords ? { hybrid: true } : {}) };
  else return { ...body, words: text };
  return withWords ? { ...body, words: text } : body;
}

async function runSearch(wanted) {
  query = wanted;
  showQuery();
  showFilterError(null);
  $('results').setAttribute('aria-busy', 'true');
  const found = await searchTask.send('searching', 'search', { json: searchBody(wanted) }, (error) => error.param === 'filter' && showFilterError(error));
  if (query !== wanted) return;  // another search began
  showResults(found);
  if (!found) return;
  if (wanted.like) showQuery();
  searchTask.say(['foundNone', 'foundOne'][found.results.length] || 'found', { count: found.results.length, time: formatTime(found.seconds) });
}

function clearSearch() {
  query = null;
  searchTask.reset();
  showQuery();
  showFilterError(null);
  showResults(null);
  const names = () => new Intl.ListFormat(LOCALES[language], { type: 'disjunction' }).format(index.modalities.map((name) => translate(name).toLowerCase()));
  searchTask.say('rows', { count: index.rows, modalities: names });
}

function showFilterError(error) {
  showError($('filter-error'), error);
  $('filter').setAttribute('aria-invalid', Boolean(error));
  if (error) $('options').open = true;
  return true;
}

/** Shows the query next to the results: its words, or its image, player or row. */
function showQuery() {
  const shown = $('query-shown'), { text, like, media } = query || {};
  shown.hidden = $('clear').hidden = !hasQuery(query);
  shown.replaceChildren();
  if (media?.kind === 'image') shown.append(make('img', { src: media.shown, alt: media.name }));
  else if (media) shown.append(make('audio', { src: media.shown, controls: true, ariaLabel: media.name }));
  else if (like) {
    const image = known.get(like)?.media.find(({ modality }) => modality === 'image');
    shown.append(...(image ? [makeMedia(image, like)] : []), make('span', { t: 'similar', values: { id: like } }));
  }
  if (text) shown.append(make('span', { t: media || like ? 'withWords' : 'quoted', values: { text } }));
  setText($('text'), (media || like) && index.words ? 'placeholderWords' : 'placeholder', null, 'placeholder');
  showTitle();
}

/** Shows results and how they were found, or none. */
function showResults(found) {
  const { results = [], steps = [] } = found || {};
  for (const result of results) known.set(result.id, result);
  $('results').setAttribute('aria-busy', 'false');
  $('results').classList.toggle('plain', results.every(({ media }) => media.every(({ modality }) => modality === 'audio')));
  $('results').replaceChildren(...results.map(makeResult));
  $('steps').hidden = !steps.length;
  $('steps-rows').replaceChildren(...steps.map(({ name, method, rows, filtered, scored, seconds, note }) => make('tr', {},
    ...[name, method, rows, filtered, scored, formatTime(seconds), note].map((value) => make('td', { textContent: typeof value === 'number' ? formatNumber(value) : value ?? '' })))));
}

function makeResult({ rank, id, score, text, payload, media }) {
  // As in the program: the first line of a text.
  const name = text?.split('\n')[0] || id, files = media.map(({ field }) => field);
  const shownMedia = media.map((medium) => {
    const isLink = medium.modality === 'image' && !key && new URL(medium.url, location.href).origin === location.origin;
    return make(isLink ? 'a' : 'div', { className: medium.modality === 'audio' && media.length > 1 ? 'medium sound' : 'medium', ...(isLink ? { href: medium.url, target: '_blank', rel: 'noopener' } : {}) }, makeMedia(medium, name));
  });
  const fields = Object.entries(payload || {}).filter(([field, value]) => !files.includes(field) && ![null, id, text].includes(value)).slice(0, 4);
  const list = fields.flatMap(([field, value]) => [make('dt', { textContent: field }), make('dd', { textContent: typeof value === 'object' ? JSON.stringify(value) : value })]);
  const body = make('div', { className: 'body' },
    make('p', { className: 'place soft' }, make('span', { textContent: rank }), make('span', { t: 'score', values: { score: () => formatScore(score) } })),
    text ? make('p', { className: 'text', textContent: name }) : null, make('p', { className: 'id', textContent: id }), list.length ? make('dl', {}, ...list) : null);
  const similar = makeButton('similarButton', () => {
    startSearch({ ...readOptions(), text: '', like: id });
    $('query-shown').focus({ preventScroll: true });
    scrollTo({ top: 0 });
  }, { label: 'similarLabel', values: { id } });
  return make('li', { className: 'result' }, ...shownMedia, body, similar);
}

/** Prepares the tab for what the index can be searched by. */
function prepareSearch(answer) {
  index = answer;
  const by = (name) => index.modalities.includes(name);
  $('searchable').hidden = false;
  $('searchbar').hidden = !by('text') && !index.words;
  $('media-buttons').hidden = !by('image') && !by('audio');
  $('choose-image').hidden = !by('image');
  $('choose-audio').hidden = $('record').hidden = !by('audio');
  $('words-option').hidden = !index.words;
  $('options').open = matchMedia('(min-width: 720px)').matches;
  attachRecorder($('record'), searchTask, searchByFile);
  if (index.fields.length) $('fields').append(make('span', { className: 'soft', t: 'fields' }));
  $('fields').append(...index.fields.slice(0, 24).map((field) => make('button', { type: 'button', textContent: field, label: 'insertField', values: { name: field }, onclick: () => {
    const { value, selectionStart: start, selectionEnd: end } = $('filter'), name = /^[\p{L}_][\p{L}\p{N}_.]*$/u.test(field) ? field : `\`${field}\``;
    $('filter').setRangeText(`${/[^\s(]$/.test(value.slice(0, start)) ? ' ' : ''}${name} `, start, end, 'end');
    $('filter').focus();
  } })));
  followAddress();
}

