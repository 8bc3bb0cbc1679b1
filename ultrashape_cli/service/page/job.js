// One refinement: where it is, then what it made.

import {ENDED, ask, follow, pause, request, save} from './api.js';
import {duration, make, troubleCard} from './dom.js';
import {downloads, figures, settings} from './result.js';
import {Stage} from './stage.js';

const POLL_MS = 3000, LONGEST_POLL_MS = 15000, SOON_MS = 150;
const STAGES = {
  read: 'reading the mesh', load: 'loading the model', sample: 'sampling the shape',
  mesh: 'making the mesh', write: 'writing files',
};

/** Shows a job until it is closed; asks for it again and again, and at once when it changes. */
export class JobView {
  constructor(place, id, {formats, onTrouble, onChange}) {
    Object.assign(this, {place, id, formats, onTrouble, onChange});
    this.leaving = new AbortController();
    this.job = null;
    this.build();
    this.poll();
    follow(id, event => this.onEvent(event), this.leaving.signal);
  }

  build() {
    this.title = make('h2', {tabindex: -1});
    this.state = make('em', {class: 'state'});
    this.cancel = make('button', {type: 'button', hidden: true, onclick: () => this.end()},
      'Cancel');
    this.remove = make('button', {type: 'button', hidden: true, onclick: () => this.purge()},
      'Remove files');
    this.bar = make('progress', {max: 100, 'aria-label': 'Progress'});
    this.where = make('p', {class: 'where'});
    this.heard = make('p', {class: 'unseen', 'aria-live': 'polite'});
    this.progress = make('div', {class: 'card', hidden: true}, this.bar, this.where);
    this.lost = make('p', {class: 'lost', role: 'status', hidden: true});
    this.trouble = make('div', {role: 'alert'});
    this.warnings = make('ul', {class: 'warnings', 'aria-label': 'Warnings', hidden: true});
    this.result = make('div');
    this.stage = new Stage(this.id);
    this.place.replaceChildren(
      make('div', {class: 'head'}, this.title, this.state, this.cancel, this.remove),
      this.lost, this.progress, this.heard, this.trouble, this.warnings,
      this.stage.element, this.result);
  }

  close() {
    this.leaving.abort();
    this.stage.close();
  }

  onEvent(event) {
    if (event.kind === 'warning') {
      this.warnings.hidden = false;
      this.warnings.append(make('li', {}, event.data.message));
    }
    // A burst of events is one question.
    if (event.kind === 'progress' && this.job) {
      this.show({...this.job, ...pick(event.data, ['stage', 'percent'])});
    } else {
      clearTimeout(this.soon);
      this.soon = setTimeout(() => this.look(), SOON_MS);
    }
  }

  async poll() {
    let wait = POLL_MS;
    while (!this.leaving.signal.aborted && !ENDED.has(this.job?.state)) {
      wait = await this.look() ? POLL_MS : Math.min(2 * wait, LONGEST_POLL_MS);
      await pause(wait, this.leaving.signal);
    }
  }

  async look() {
    const {signal} = this.leaving;
    try {
      const job = await ask(`/v1/jobs/${this.id}`, {signal});
      this.lost.hidden = true;
      this.show(job);
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      if ([401, 403, 404].includes(error.status)) {
        this.leaving.abort();
        this.onTrouble(error.status === 404 ? Object.assign(error, {hint:
          'It may have been made with another token, or on another service.'}) : error);
        this.place.hidden = true;
        return false;
      }
      this.lost.hidden = false;
      this.lost.textContent = `${error.detail ?? error.message} Asking again. The job goes on `
        + 'without this page.';
      return false;
    }
  }

  show(job) {
    const before = this.job?.state;
    // An answer that was under way when the job ended is old.
    if (ENDED.has(before) && !ENDED.has(job.state)) return;
    this.job = job;
    const name = job.inputs.mesh.name;
    this.title.replaceChildren(name, make('small', {}, ` with ${job.inputs.image.name}`));
    const word = job.cancelling ? 'cancelling' : job.state;
    this.state.textContent = word;
    this.state.className = `state ${job.state}`;
    const isOver = ENDED.has(job.state);
    document.title = isOver ? `${job.state}: ${name}` : `${job.percent} % ${name}`;
    this.cancel.hidden = isOver;
    this.cancel.disabled = job.cancelling;
    this.remove.hidden = !isOver || !job.files.length;
    this.showProgress(job, isOver);
    if (before !== job.state) this.changed(job, !before);
    this.onChange(job);
  }

  showProgress(job, isOver) {
    this.progress.hidden = isOver;
    if (isOver) return;
    if (job.state === 'queued') this.bar.removeAttribute('value');
    else this.bar.value = job.percent;
    const left = job.seconds_left ? `, about ${duration(job.seconds_left)} left` : '';
    this.where.textContent = job.state === 'queued' ? `${placeIn(job)}${left}`
      : `${stageOf(job.stage)}, ${job.percent} %${left}`;
    if (job.attempts > 1) this.where.append(`; attempt ${job.attempts}, after a worker was lost`);
    // For those who listen, not every per cent.
    const heard = job.state === 'queued' ? placeIn(job)
      : `${stageOf(job.stage)}, ${10 * Math.floor(job.percent / 10)} per cent`;
    if (this.heard.textContent !== heard) this.heard.textContent = heard;
  }

  changed(job, isFirst) {
    if (isFirst) this.title.focus({preventScroll: true});
    if (ENDED.has(job.state)) this.heard.textContent = `The job is ${job.state}.`;
    this.trouble.replaceChildren();
    const again = make('a', {class: 'button', href: '#new'}, 'Another try');
    if (job.state === 'failed') {
      this.trouble.replaceChildren(troubleCard({
        detail: job.error.message, hint: job.error.hint, code: job.error.code}, again));
    } else if (job.state === 'cancelled') {
      this.trouble.replaceChildren(make('p', {class: 'card'}, 'This refinement was cancelled. ',
        again));
    }
    const isGone = ENDED.has(job.state) && job.state === 'done' && !job.files.length;
    if (isGone) {
      this.trouble.replaceChildren(make('p', {class: 'card'}, 'The files of this refinement were '
        + 'removed; its figures are kept.'));
    }
    this.stage.show(job, isGone);
    this.result.replaceChildren(...(job.state === 'done' ? [
      isGone ? '' : downloads(job, this.formats, path => this.download(path)), figures(job), settings(job),
    ] : [settings(job)]));
  }

  async download(path) {
    try {
      await save(path);
    } catch (problem) {
      this.tell(problem);
    }
  }

  async end() {
    this.cancel.disabled = true;
    try {
      this.show(await (await request(`/v1/jobs/${this.id}`, {method: 'DELETE'})).json());
    } catch (problem) {
      this.cancel.disabled = false;
      this.tell(problem);
    }
  }

  async purge() {
    if (!confirm('Remove mesh, picture and results of this refinement from the service?')) return;
    try {
      await request(`/v1/jobs/${this.id}`, {method: 'DELETE'});
      this.job = null;
      await this.look();
    } catch (problem) {
      this.tell(problem);
    }
  }

  tell(problem) {
    this.trouble.replaceChildren(troubleCard(problem, make('button', {type: 'button',
      onclick: () => this.trouble.replaceChildren()}, 'Close')));
  }
}

const pick = (from, names) =>
  Object.fromEntries(names.filter(name => name in from).map(name => [name, from[name]]));

function placeIn(job) {
  return job.place === 1 ? 'Next in the queue' : `Place ${job.place} in the queue`;
}

function stageOf(stage) {
  const [name, cells] = (stage ?? '').split(' ');
  if (name === 'decode') return `decoding the surface at ${cells} cells`;
  return STAGES[name] ?? stage ?? 'beginning';
}
