// ---- Address of the page ---------------------------------------------------------------------------------------------
// The part after # holds the tab and the query. A file cannot be in it: the entry of the history has its number in `kept`.
const kept = new Map(), MOST_KEPT = 10;
let lastKept = 0, tab = 'search', index = null, models = [];
let query = null;  // what is shown: { text, filter, count, words, like, media }

const hasQuery = (wanted) => Boolean(wanted && (wanted.text || wanted.like || wanted.media));
const readCount = (text) => Math.min(500, Math.max(1, Math.round(Number(text)) || 24));

function makeAddress(wanted, inTab = 'search') {
  const { text, like, filter, count = 24, words } = wanted || {};
  const parts = Object.entries({ tab: inTab === 'search' ? '' : inTab, q: text, like, filter, k: count === 24 ? '' : count, words: words ? 1 : '' });
  const hash = new URLSearchParams(parts.filter(([, value]) => value));
  return hash.size ? `#${hash}` : location.pathname + location.search;
}

/** Puts a query and a tab in the address, as a new entry of the history where either is new. */
function writeAddress(wanted, inTab) {
  const address = makeAddress(wanted, inTab), state = { media: wanted?.media?.number };
  const same = address === (location.hash || location.pathname + location.search) && state.media === history.state?.media;
  history[same ? 'replaceState' : 'pushState'](state, '', address);
}

/** Shows what the address says. */
function followAddress() {
  const parts = new URLSearchParams(location.hash.slice(1)), get = (name) => parts.get(name) || '';
  showTab(get('tab') === 'ask' ? 'ask' : 'search');
  if (!index) return;
  const wanted = { text: get('q'), filter: get('filter'), count: readCount(get('k')), words: Boolean(get('words')), like: get('like'), media: kept.get(history.state?.media) };
  const isShown = query && makeAddress(query) === makeAddress(wanted) && query.media === wanted.media;
  fillForm(wanted);
  if (!hasQuery(wanted)) clearSearch();
  else if (!isShown) runSearch(wanted);
}

function showTab(name) {
  tab = name;
  for (const each of ['search', 'ask']) {
    $(each).hidden = each !== name;
    $(`tab-${each}`).setAttribute('aria-selected', each === name);
    $(`tab-${each}`).tabIndex = each === name ? 0 : -1;
  }
  showTitle();
}

function openTab(name) { if (name !== tab) writeAddress(query, name); showTab(name); }
function showTitle() { document.title = tab === 'search' && (query?.text || query?.like) ? `${query.text || query.like} · mm` : 'mm'; }

