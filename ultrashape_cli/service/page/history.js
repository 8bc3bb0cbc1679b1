// The list of refinements: from the service, and until that answers as it was seen last.

import {ENDED, ask} from './api.js';
import {ago, byId, duration, make} from './dom.js';

const KEY = 'ushape.history', KEPT = 50, AT_ONCE = 20;

/** The jobs of whoever asks, newest first. */
export class History {
  constructor(place) {
    this.place = place;
    this.list = byId('jobs');
    this.more = byId('more');
    this.jobs = new Map();
    this.marked = '';
    this.more.addEventListener('click', () => this.load(this.next));
  }

  async load(before) {
    const page = before ? `&before=${before}` : '';
    const found = await ask(`/v1/jobs?limit=${AT_ONCE}${page}`);
    for (const job of found.jobs) this.jobs.set(job.job_id, brief(job));
    this.next = found.next;
    this.more.hidden = !found.next;
    this.show();
  }

  /** Asks how those that have not ended are now. */
  async refresh() {
    const waiting = [...this.jobs.values()].filter(job => !ENDED.has(job.state)
      && job.id !== this.marked);
    if (waiting.length) await this.load();
  }

  /** Shows what was seen last, where the service does not answer. */
  showKnown() {
    for (const job of remembered()) this.jobs.set(job.id, job);
    this.place.hidden = !this.jobs.size;
    this.show();
  }

  /** Puts a job as it is now into the list. */
  note(job) {
    const known = this.jobs.get(job.job_id);
    if (known?.state === job.state && known.percent === job.percent) return;
    if (known) {
      this.jobs.set(job.job_id, brief(job));
    } else {
      this.jobs = new Map([[job.job_id, brief(job)], ...this.jobs]);
      // Those of the other pictures came with it.
      this.load().catch(() => this.show());
    }
    this.show();
  }

  mark(job) {
    this.marked = job;
    this.show();
  }

  forget() {
    localStorage.removeItem(KEY);
    this.jobs.clear();
    this.show();
  }

  show() {
    const jobs = [...this.jobs.values()].sort((a, b) => a.created < b.created ? 1 : -1);
    localStorage.setItem(KEY, JSON.stringify(jobs.slice(0, KEPT)));
    this.list.replaceChildren(...jobs.map(job => make('li', {},
      make('a', {href: `#job=${job.id}`, 'aria-current': job.id === this.marked && 'true'},
        make('span', {class: 'name'}, job.mesh, make('small', {}, ` with ${job.image}`)),
        make('em', {class: job.state}, job.state === 'running' ? `${job.percent} %` : job.state),
        make('small', {class: 'when'}, [job.seconds ? duration(job.seconds) : '', ago(job.created)]
          .filter(Boolean).join(' · '))))));
    if (!jobs.length) {
      this.list.replaceChildren(make('li', {class: 'none'}, 'None yet. They stay here, also when '
        + 'this page is closed.'));
    }
  }
}

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? '[]');
  } catch {  // of another version of this page, or of another page
    return [];
  }
}

function brief(job) {
  const seconds = Object.values(job.result?.seconds ?? {}).reduce((sum, each) => sum + each, 0);
  return {id: job.job_id, mesh: job.inputs.mesh.name, image: job.inputs.image.name,
    state: job.state, percent: job.percent, created: job.created, seconds};
}
