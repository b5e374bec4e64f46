'use strict';

// ---- Texts -----------------------------------------------------------------------------------------------------------
// English and Chinese. Elements name their text with data-t, and attributes with data-t-label, data-t-placeholder, data-t-title or data-t-alt.
// {name} is replaced by a value.
const TEXTS = {
  language: ['中文', 'English'], languageCode: ['zh-Hans', 'en'], sections: ['Sections', '功能'], search: ['Search', '检索'], ask: ['Ask', '提问'], image: ['Image', '图像'], audio: ['Audio', '音频'],
  video: ['Video', '视频'], text: ['Text', '文本'], searchLabel: ['What to search for', '检索内容'], placeholder: ['Describe what you are looking for', '描述要查找的内容'],
  placeholderWords: ['Add words (optional)', '可再添加词语'], record: ['Record', '录音'], recording: ['Stop ({time})', '停止（{time}）'],
  dropHint: ['Files can also be dropped or pasted anywhere on this page.', '也可以把文件拖放或粘贴到页面任意位置。'], dropHere: ['Drop to use this file', '松开以使用此文件'], options: ['Options', '选项'],
  filter: ['Filter', '过滤条件'], fields: ['Fields:', '字段：'], insertField: ['{name}: insert this field into the filter', '{name}：在过滤条件中插入此字段'], words: ['Match words too', '同时匹配词语'],
  wordsHint: ['Also finds rows by the words of the text, and combines both lists', '同时按文本中的词语检索，并合并两个结果列表'], count: ['Results', '结果数'],
  rows: ['{count} rows, searched by {modalities}', '{count} 行，可用{modalities}进行跨模态检索'], found: ['{count} results in {time}', '{count} 个结果，用时 {time}'],
  foundOne: ['1 result in {time}', '1 个结果，用时 {time}'], foundNone: ['No results', '没有结果'], results: ['Results of the search', '检索结果'], quoted: ['“{text}”', '“{text}”'],
  similar: ['Similar to {id}', '与 {id} 相似'], withWords: ['with the words “{text}”', '并含词语“{text}”'], similarButton: ['More like this', '查找相似'], similarLabel: ['More like this: {id}', '查找相似：{id}'],
  load: ['Load {modality}', '加载{modality}'], missing: ['Not available', '无法显示'], score: ['Score {score}', '得分 {score}'], steps: ['How it was searched', '检索过程'], stepName: ['Step', '步骤'],
  stepMethod: ['Method', '方法'], stepRows: ['Rows', '行数'], stepFiltered: ['After filter', '过滤后'], stepScored: ['Scored', '计分行数'], stepTime: ['Time', '用时'], stepNote: ['Note', '备注'],
  loading: ['Loading…', '正在加载…'], searching: ['Searching…', '正在检索…'], working: ['Working…', '正在处理…'], transcribing: ['Transcribing…', '正在转写…'], answering: ['Answering…', '正在回答…'],
  explaining: ['Answering and explaining…', '正在回答并解释…'], cancel: ['Cancel', '取消'], cancelled: ['Cancelled', '已取消'], stop: ['Stop', '停止'], stopped: ['Stopped', '已停止'], clear: ['Clear', '清除'],
  again: ['Try again', '重试'], emptyQuery: ['Type words or choose a file to search.', '请输入词语，或选择要检索的文件。'], needImage: ['Choose an image first.', '请先选择图像。'],
  noIndex: ['This server has no index, so there is nothing to search. Build one from a folder, then serve it:', '此服务器没有索引，无法检索。请先为文件夹建立索引，再启动服务：'],
  noTasks: ['No model of this server answers, describes, chats or transcribes.', '此服务器上没有可以问答、描述、对话或转写的模型。'],
  unsupported: ['The file {name} cannot be used here.', '此处无法使用文件 {name}。'], unreadable: ['The browser cannot read {name}.', '浏览器无法读取 {name}。'],
  noMicrophone: ['The microphone cannot be used: {reason}', '无法使用麦克风：{reason}'], unreachable: ['The server cannot be reached.', '无法连接服务器。'],
  notJson: ['The server sent something that is not JSON.', '服务器返回的内容不是 JSON。'], cutOff: ['The answer was cut off.', '回答中途中断。'],
  busy: ['The server is busy. Trying again in {seconds} s ({attempt} of {attempts}).', '服务器繁忙，{seconds} 秒后重试（第 {attempt} 次，共 {attempts} 次）。'],
  notReady: ['The server is still loading. Trying again in {seconds} s ({attempt} of {attempts}).', '服务器仍在加载，{seconds} 秒后重试（第 {attempt} 次，共 {attempts} 次）。'],
  keyTitle: ['This server needs a key', '此服务器需要密钥'], key: ['Key', '密钥'], keyUse: ['Use key', '使用密钥'], chooseImage: ['Drop, paste or choose an image', '拖放、粘贴或选择图像'],
  change: ['Change image', '更换图像'], heatMap: ['Heat map', '热力图'], describe: ['Describe', '图像描述'], model: ['Model', '模型'], answerTitle: ['Visual question answering', '视觉问答'],
  question: ['Question', '问题'], questionExample: ['What is in the image?', '图像中有什么？'], explain: ['Show what the answer depends on', '显示答案的依据'], answers: ['Answers by score', '按得分排列的答案'],
  chatTitle: ['Conversation', '对话'], messages: ['Messages', '消息记录'], message: ['Message', '消息'], send: ['Send', '发送'], newChat: ['New conversation', '新对话'], user: ['You', '你'],
  assistant: ['Model', '模型'], transcribeTitle: ['Transcription', '转写'], chooseAudio: ['Choose audio', '选择音频'],
};
const LOCALES = ['en', 'zh-Hans'], given = new WeakMap();  // element → the values in its texts, to translate them again
let language = LOCALES.indexOf(sessionStorage.getItem('language'));
if (language < 0) language = /^zh/i.test(navigator.languages.find((name) => /^(en|zh)\b/i.test(name))) ? 1 : 0;

const $ = (id) => document.getElementById(id);
const formatNumber = (number, options) => number.toLocaleString(LOCALES[language], options);
const formatScore = (score) => formatNumber(score, { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
const formatTime = (seconds) => seconds < 0.9995 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : `${seconds.toFixed(1)} s`;

/** The text `name` in the current language. Numbers are formatted; functions are called, so that they can depend on the language. */
function translate(name, values = {}) {
  return TEXTS[name][language].replace(/\{(\w+)\}/g, (_, key) => {
    const value = typeof values[key] === 'function' ? values[key]() : values[key];
    return typeof value === 'number' ? formatNumber(value) : value;
  });
}

/** Shows a text of the table in an element, or in an attribute of it, and again whenever the language changes. */
function setText(element, name, values, attribute) {
  if (values) given.set(element, values);
  element.setAttribute(attribute ? `data-t-${attribute}` : 'data-t', name);
  const text = translate(name, given.get(element));
  if (attribute) element.setAttribute(attribute === 'label' ? 'aria-label' : attribute, text);
  else element.textContent = text;
}

/** Shows text that is not translated: data, and messages of the server. */
function setPlain(element, text) { delete element.dataset.t; element.textContent = text; }

function setLanguage(number) {
  language = number;
  sessionStorage.setItem('language', document.documentElement.lang = LOCALES[number]);
  for (const attribute of ['', '-label', '-placeholder', '-title', '-alt']) {
    for (const element of document.querySelectorAll(`[data-t${attribute}]`)) setText(element, element.getAttribute(`data-t${attribute}`), null, attribute.slice(1));
  }
  $('language').lang = translate('languageCode');
}

/** Makes an element. `t` and `label` are names of texts, with `values`; other properties are set as they are. */
function make(tag, { t, label, values, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  if (t) setText(element, t, values);
  if (label) setText(element, label, values, 'label');
  element.append(...children.filter((child) => child != null));
  return element;
}

const makeButton = (t, onclick, more) => make('button', { type: 'button', className: 'quiet', t, onclick, ...more });

