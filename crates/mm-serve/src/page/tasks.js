// ---- Tasks and errors ------------------------------------------------------------------------------------------------
/** An error whose message is a text of the table. */
const makeError = (text, values) => Object.assign(new Error(text), { text, values });

function showError(element, error) {
  element.hidden = !error;
  if (error?.text) setText(element, error.text, error.values);
  else setPlain(element, error ? error.message : '');
}

/** One part of the page that does one thing at a time: it says what it does, shows errors, and can be cancelled. */
class Task {
  constructor(id, { cancel = 'cancel', ended = 'cancelled' } = {}) {
    this.status = make('p', { className: 'status', role: 'status' });
    this.error = make('p', { className: 'error grow', role: 'alert', hidden: true });
    this.cancelButton = makeButton(cancel, () => this.controller.abort(), { hidden: true });
    this.holder = $(id);
    this.holder.append(this.status, this.error, this.cancelButton);
    this.ended = ended;
  }

  say(name, values) { setText(this.status, name, values); }
  fail(error) { setPlain(this.status, ''); showError(this.error, error); }
  setBusy(busy) { this.holder.classList.toggle('busy', busy); this.cancelButton.hidden = !busy; }
  /** Cancels what runs and says nothing more about it. */
  reset() {
    this.controller = this.controller?.abort();
    this.setBusy(false);
    this.fail(null);
  }

  /** Runs `work(signal)` in place of what ran before. Returns what it returns, or undefined where it failed or was cancelled. */
  async run(doing, work, isHandled = () => false) {
    this.reset();
    const controller = this.controller = new AbortController(), { signal } = controller;
    this.say(this.doing = doing);
    this.setBusy(true);
    const result = await work(signal).catch((error) => ({ error }));
    if (controller !== this.controller) return undefined;
    this.setBusy(false);
    this.fail(signal.aborted || !result?.error || isHandled(result.error) ? null : result.error);
    if (signal.aborted) this.say(this.ended);
    return signal.aborted || result?.error ? undefined : result;
  }

  /** Sends a request and returns the JSON that comes back. */
  send(doing, path, options, isHandled) {
    return this.run(doing, async (signal) => {
      const response = await request(path, { ...options, signal, task: this });
      return response.json().catch((error) => { throw signal.aborted ? error : makeError('notJson'); });
    }, isHandled);
  }
}

