// The form: a mesh, pictures and options; what the service takes is what it has told.

import {randomKey, upload} from './api.js';
import {bytes, make, troubleCard} from './dom.js';
import {Options} from './options.js';

const ALSO = {jpeg: 'jpg', tiff: 'tif'};
const kindOf = name => {
  const end = name.toLowerCase().split('.').pop();
  return ALSO[end] ?? end;
};

/** The form of a new refinement. */
export class Form {
  /**
   * @param {HTMLElement} place where it goes
   * @param {object} status of the service, with its limits
   * @param {object} known the options that the service takes
   * @param {(job: string) => void} onQueued gets the job that was made
   */
  constructor(place, status, known, onQueued) {
    this.limits = status.limits;
    this.onQueued = onQueued;
    this.mesh = null;
    this.images = [];
    this.options = new Options(known);
    this.trouble = make('div', {role: 'alert'});
    this.said = make('p', {class: 'note', role: 'status'});
    this.bar = make('progress', {max: 1, value: 0, hidden: true, 'aria-label': 'Sent'});
    this.send = make('button', {type: 'submit', class: 'main'}, 'Refine');
    this.stop = make('button', {type: 'button', hidden: true,
      onclick: () => this.aborting?.abort()}, 'Stop the upload');
    this.meshDrop = this.drop('mesh', 'Coarse mesh', this.limits.mesh_types, false);
    this.imageDrop = this.drop('image', 'Reference pictures', this.limits.image_types, true);
    this.form = make('form', {class: 'new', onsubmit: event => this.submit(event)},
      make('div', {class: 'drops'}, this.meshDrop.box, this.imageDrop.box),
      this.options.element,
      this.trouble,
      make('div', {class: 'row end'}, this.said, this.bar, this.stop, this.send));
    place.replaceChildren(this.form);
    this.listenToDrops();
    this.show();
  }

  drop(what, title, kinds, several) {
    const accept = kinds.map(kind => `.${kind}`)
      .concat(several ? Object.keys(ALSO).map(kind => `.${kind}`) : []).join(',');
    const input = make('input', {type: 'file', id: `${what}-file`, class: 'unseen', accept,
      multiple: several, onchange: event => {
        this.take([...event.target.files]);
        event.target.value = '';
      }});
    const most = several ? `${kinds.join(', ')} up to ${this.limits.image_mb} MB each`
      : `${kinds.join(', ')} up to ${this.limits.mesh_mb} MB`;
    const list = make('ul', {class: several ? 'files pictures' : 'files'});
    const box = make('div', {class: 'drop'},
      make('label', {for: `${what}-file`},
        make('b', {}, title),
        make('span', {}, 'Drop here, or ', make('u', {}, 'choose')),
        make('small', {}, most + (several ? '; each makes a mesh of its own' : ''))),
      input, list);
    return {box, list, input};
  }

  listenToDrops() {
    // Beside the fields, too: a file that misses them would replace the page.
    const mark = on => this.form.classList.toggle('over', on);
    for (const [name, act] of Object.entries({
      dragover: event => mark(event.dataTransfer?.types.includes('Files')),
      dragleave: event => { if (!event.relatedTarget) mark(false); },
      drop: event => { mark(false); this.take([...event.dataTransfer.files]); },
    })) {
      document.addEventListener(name, event => {
        if (!this.form.isConnected || this.form.parentElement.hidden) return;
        event.preventDefault();
        act(event);
      });
    }
  }

  take(files) {
    this.trouble.replaceChildren();
    for (const file of files) {
      const kind = kindOf(file.name), isImage = this.limits.image_types.includes(kind);
      const limit = isImage ? this.limits.image_mb : this.limits.mesh_mb;
      if (!isImage && !this.limits.mesh_types.includes(kind)) {
        this.refuse(`\`${file.name}\` is neither a mesh nor a picture that the service reads`,
          `meshes: ${this.limits.mesh_types.join(', ')}; pictures: `
          + this.limits.image_types.join(', '));
      } else if (file.size > limit * 1e6) {
        this.refuse(`\`${file.name}\` has ${bytes(file.size)}; ${limit} MB are taken`,
          isImage ? 'a smaller picture: the network sees about a thousand pixels of a side'
            : 'reduce the mesh, or send it as GLB');
      } else if (!isImage) {
        this.mesh = file;
      } else if (this.images.length >= this.limits.images) {
        this.refuse(`${this.limits.images} pictures are taken at once`, 'send the others after');
      } else {
        this.images.push({file, url: URL.createObjectURL(file)});
      }
    }
    this.key = randomKey();
    this.show();
  }

  refuse(detail, hint) {
    this.trouble.append(troubleCard({detail, hint}));
  }

  show() {
    const remove = (name, act) => make('button', {type: 'button', class: 'small',
      'aria-label': `Leave out ${name}`, onclick: () => { act(); this.key = randomKey(); this.show(); }},
      '×');
    this.meshDrop.list.replaceChildren(...(this.mesh ? [make('li', {},
      make('span', {}, this.mesh.name), make('small', {}, bytes(this.mesh.size)),
      remove(this.mesh.name, () => { this.mesh = null; }))] : []));
    this.imageDrop.list.replaceChildren(...this.images.map(each => make('li', {},
      make('img', {src: each.url, alt: ''}),
      make('span', {}, each.file.name),
      remove(each.file.name, () => {
        URL.revokeObjectURL(each.url);
        this.images = this.images.filter(other => other !== each);
      }))));
    const lacking = [this.mesh ? '' : 'a mesh', this.images.length ? '' : 'a picture'];
    const missing = lacking.filter(Boolean).join(' and ');
    this.send.disabled = Boolean(missing);
    this.say(missing ? `Still needed: ${missing}` : this.images.length > 1
      ? `${this.images.length} refinements, one for each picture` : 'Ready');
  }

  say(text) {
    this.said.textContent = text;
  }

  async submit(event) {
    event.preventDefault();
    const body = new FormData();
    body.append('mesh_file', this.mesh);
    for (const {file} of this.images) body.append('image_file', file);
    const options = JSON.stringify(this.options.changed());
    body.append('options', options);
    if (options !== this.sentOptions) this.key = randomKey();
    this.sentOptions = options;
    this.trouble.replaceChildren();
    this.busy(true);
    this.aborting = new AbortController();
    try {
      // The key stays as it is until something else is asked: sent twice, it is one job.
      const made = await upload(body, this.key, part => {
        this.bar.value = part;
        this.say(part < 1 ? `sending, ${Math.floor(100 * part)} %` : 'the service looks at it');
      }, this.aborting.signal);
      this.key = randomKey();
      this.onQueued(made.job_id);
    } catch (problem) {
      if (problem.code !== 'stopped') this.tell(problem);
    } finally {
      this.busy(false);
      this.show();
    }
  }

  tell(problem) {
    // The same again helps against what passes: no answer, a full queue, a full disk.
    const passes = problem.status === 0 || [408, 429].includes(problem.status)
      || problem.status >= 500;
    const again = make('button', {type: 'button', onclick: () => this.form.requestSubmit()},
      'Try again');
    this.trouble.replaceChildren(troubleCard(problem, passes ? again : null));
    if (!problem.retry) return;
    let left = problem.retry;
    const count = () => {
      again.disabled = left > 0;
      again.textContent = left > 0 ? `Try again in ${left} s` : 'Try again';
      if (left-- > 0 && again.isConnected) setTimeout(count, 1000);
    };
    count();
  }

  busy(on) {
    this.bar.hidden = this.stop.hidden = !on;
    this.send.hidden = on;
    this.bar.value = 0;
    this.form.setAttribute('aria-busy', String(on));
  }
}
