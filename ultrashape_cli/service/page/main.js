// The page: who asks, what is shown (the address says), and the state of the service.

import {ask, token} from './api.js';
import {byId, troubleCard, make} from './dom.js';
import {Form} from './form.js';
import {History} from './history.js';
import {JobView} from './job.js';

const STATUS_MS = 15000, HISTORY_MS = 5000;
const history = new History(byId('history'));
const views = {form: null, job: null};
let formats = [];

/** Shows an error above everything; for a token that is missing, the field for it. */
function showTrouble(problem) {
  if (problem.status === 401) {
    showToken(true);
    byId('trouble').replaceChildren(troubleCard({
      status: 401, code: problem.code,
      detail: token.get() ? 'The service does not know this token.' : 'The service wants a token.',
      hint: 'Enter one below; whoever runs the service can make it.',
    }));
    return;
  }
  const again = make('button', {type: 'button', onclick: () => begin()}, 'Try again');
  byId('trouble').replaceChildren(troubleCard(problem, again));
}

function showToken(shown) {
  byId('token').hidden = !shown;
  byId('token-forget').hidden = !token.get();
  if (shown) byId('secret').focus();
}

async function begin() {
  byId('trouble').replaceChildren();
  try {
    const [status, options] = await Promise.all([ask('/v1/status'), ask('/v1/options')]);
    showToken(false);
    formats = options.properties.format.enum;
    views.form = new Form(byId('new'), status, options.properties, open);
    showService(status);
    await history.load();
    byId('history').hidden = false;
    route();
  } catch (error) {
    history.showKnown();
    showService(null, error.status === 401 ? 'token needed' : 'out of reach');
    showTrouble(error);
  }
}

function showService(status, lack = 'out of reach') {
  const sign = byId('service');
  const ready = status?.workers.filter(each => ['idle', 'busy'].includes(each.state)).length ?? 0;
  const waiting = status?.jobs.queued ?? 0;
  sign.className = status ? ready ? 'good' : 'warn' : 'bad';
  sign.textContent = !status ? lack
    : status.state !== 'running' ? status.state
    : !ready ? 'no worker is ready yet'
    : waiting ? `${waiting} waiting` : `${ready} ${ready > 1 ? 'workers' : 'worker'} ready`;
  if (!status) return;
  byId('version').textContent = status.version;
  const model = status.models[status.default_model];
  byId('about').textContent = 'Coarse mesh and reference picture to refined mesh, with '
    + `${Object.keys(status.models).join(', ')} (${model.licence})`;
  const broken = status.workers.find(each => each.note);
  byId('reason').hidden = Boolean(ready) || !broken;
  byId('reason').textContent = broken ? 'Jobs are taken, and wait until a worker is ready. The last '
    + `one said: ${[broken.note, broken.hint].filter(Boolean).join('; ')}` : '';
}

const open = job => { location.hash = `job=${job}`; };

function route() {
  const hash = location.hash.slice(1);
  if (hash === 'main') return;  // a place on this page
  // Of a crafted link no other path may come about.
  const job = /^job=([\w-]+)$/.exec(hash)?.[1] ?? '';
  views.job?.close();
  views.job = null;
  byId('trouble').replaceChildren();
  byId('new').hidden = Boolean(job);
  byId('job').hidden = byId('another').hidden = !job;
  if (job) {
    views.job = new JobView(byId('job'), job, {
      formats,
      onTrouble: showTrouble,
      onChange: found => history.note(found),
    });
  } else {
    document.title = 'ushape';
  }
  history.mark(job);
}

byId('token').addEventListener('submit', event => {
  event.preventDefault();
  token.set(byId('secret').value.trim());
  byId('secret').value = '';
  history.forget();
  begin();
});
byId('token-forget').addEventListener('click', () => {
  token.set('');
  history.forget();
  location.hash = '';
  begin();
});
byId('token-open').addEventListener('click', () => showToken(byId('token').hidden));
addEventListener('hashchange', () => { if (views.form) route(); });
setInterval(async () => {
  if (document.hidden || !views.form) return;
  showService(await ask('/v1/status').catch(() => null));
}, STATUS_MS);
setInterval(() => {
  if (document.hidden || !views.form) return;
  history.refresh().catch(() => showService(null));
}, HISTORY_MS);
begin();
