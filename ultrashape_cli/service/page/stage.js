// Reference, input and result side by side, or input and result under a slider.

import {request, unreachable} from './api.js';
import {make} from './dom.js';

const RETRY_MS = 5000;
const MODES = {side: 'Side by side', slide: 'Slider'};

/** The pictures of a job; the 3-D viewer is loaded once there is something for it. */
export class Stage {
  constructor(job) {
    this.job = job;
    this.loads = {};
    this.image = make('img', {alt: 'Reference picture'});
    this.reference = make('figure', {class: 'reference', hidden: true}, this.image,
      make('figcaption', {}, 'Reference'));
    this.note = make('p', {class: 'note', role: 'status'});
    this.canvas = make('canvas', {tabindex: 0, role: 'img', 'aria-describedby': 'viewer-keys'});
    this.handle = make('div', {class: 'handle', hidden: true});
    this.labels = ['Input', 'Result'].map((text, index) =>
      make('span', {class: index ? 'label right' : 'label left', hidden: true}, text));
    this.box = make('div', {class: 'view'}, this.canvas, this.handle, ...this.labels, this.note);
    this.slider = make('input', {type: 'range', min: 0, max: 100, value: 50, id: 'split'});
    this.sliding = make('div', {class: 'sliding', hidden: true},
      make('label', {for: 'split'}, 'Input'), this.slider, make('span', {}, 'Result'));
    this.clay = this.toggle('Clay', 'clay');
    this.buttons = make('div', {class: 'row tools', hidden: true}, this.modes(),
      this.toggle('Facets', 'facets'), this.toggle('Wires', 'wires'), this.clay,
      make('button', {type: 'button', onclick: () => this.viewer.reset()}, 'Reset the view'));
    this.keys = make('small', {id: 'viewer-keys', class: 'keys', hidden: true},
      'Drag to turn, scroll or pinch to come nearer, right button to move. By keyboard: arrows turn, '
      + '+ and − come nearer, 0 resets.');
    this.element = make('div', {class: 'stage', hidden: true}, this.reference,
      make('figure', {class: 'viewer'}, this.box, this.sliding, this.buttons, this.keys));
    this.slider.addEventListener('input', () => this.split(this.slider.value / 100));
    this.listenToHandle();
  }

  modes() {
    this.mode = 'side';
    const change = event => { this.mode = event.target.value; this.arrange(); };
    return make('fieldset', {class: 'choice'}, make('legend', {class: 'unseen'}, 'Arrangement'),
      ...Object.entries(MODES).map(([value, text]) => make('label', {},
        make('input', {type: 'radio', name: 'mode', value, checked: value === this.mode,
          onchange: change}), make('span', {}, text))));
  }

  toggle(text, name) {
    const button = make('button', {type: 'button', 'aria-pressed': 'false', onclick: () => {
      const on = button.getAttribute('aria-pressed') !== 'true';
      button.setAttribute('aria-pressed', String(on));
      this.viewer.look(name, on);
    }}, text);
    return button;
  }

  listenToHandle() {
    this.handle.addEventListener('pointerdown', event => {
      this.handle.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    this.handle.addEventListener('pointermove', event => {
      if (!this.handle.hasPointerCapture(event.pointerId)) return;
      const {left, width} = this.box.getBoundingClientRect();
      const at = Math.min(1, Math.max(0, (event.clientX - left) / width));
      this.slider.value = 100 * at;
      this.split(at);
    });
  }

  split(at) {
    this.handle.style.left = `${100 * at}%`;
    this.viewer?.split(at);
  }

  /** Shows what there is of a job: its reference and input at once, the result when it is done. */
  async show(job, isGone) {
    this.element.hidden = isGone;
    if (isGone) {
      this.close();
      return;
    }
    await Promise.all([this.showReference(), this.showMeshes(job)]);
  }

  async showReference() {
    if (this.image.src) return;
    try {
      const picture = await fetched(`/v1/jobs/${this.job}/download?file=image`, 'blob');
      this.image.src = URL.createObjectURL(picture);
      this.image.onerror = () => { this.reference.hidden = true; };  // browsers show no TIFF
      this.reference.hidden = false;
    } catch (problem) {
      this.reference.hidden = true;
      this.later(problem, () => this.showReference());
    }
  }

  async showMeshes(job) {
    const isDone = job.state === 'done';
    this.say(isDone ? 'Loading the meshes' : 'Loading the input');
    try {
      await (this.loads.input ??= this.load('input', job));
      this.arrange();
      if (isDone) await (this.loads.result ??= this.load('result', job));
      this.say('');
    } catch (problem) {
      this.say([problem.detail ?? problem.message, problem.hint].filter(Boolean).join(' '));
      this.later(problem, () => this.showMeshes(job));
    }
    this.arrange();
  }

  /** Tries again what a service that is away has not given. */
  later(problem, act) {
    if (problem.status !== 0 || this.isClosed) return;
    this.loads = {};
    setTimeout(() => { if (!this.isClosed) act(); }, RETRY_MS);
  }

  async load(which, job) {
    const [{Viewer}, data] = await Promise.all([
      arrived(import('./viewer.js')),
      fetched(`/v1/jobs/${this.job}/preview?of=${which}`, 'arrayBuffer')]);
    if (this.isClosed) return;
    this.viewer ??= new Viewer(this.canvas);
    if (this.viewer.has(which)) return;
    await this.viewer.add(which, data, placing(which, job));
  }

  arrange() {
    const both = this.viewer?.has('input') && this.viewer.has('result');
    const isSliding = both && this.mode === 'slide';
    this.buttons.hidden = this.keys.hidden = !this.viewer;
    this.buttons.firstChild.hidden = !both;
    this.clay.hidden = !this.viewer?.isColoured;
    this.handle.hidden = this.sliding.hidden = !isSliding;
    const [input, result] = this.labels;
    input.hidden = !this.viewer?.has('input');
    result.hidden = !this.viewer?.has('result');
    this.box.classList.toggle('both', Boolean(both) && !isSliding);
    this.canvas.setAttribute('aria-label', both ? 'Input and result in 3-D'
      : 'Input in 3-D');
    this.viewer?.arrange(isSliding ? 'slide' : 'side');
    this.split(this.slider.value / 100);
  }

  say(text) {
    this.note.textContent = text;
  }

  close() {
    this.isClosed = true;
    this.viewer?.close();
    this.viewer = null;
    if (this.image.src) URL.revokeObjectURL(this.image.src);
  }
}

/** Waits for what comes by the network outside `request`: where it is cut off, that is a Problem. */
function arrived(coming) {
  return coming.catch(() => { throw unreachable(); });
}

async function fetched(path, as) {
  const answer = await request(path);
  return arrived(answer[as]());
}

/** Returns which way a mesh stands, as the refinement took it. */
function placing(which, job) {
  const asked = job.options.refine;
  const isNormalised = which === 'result' && asked.frame === 'normalised';
  const isFlat = ['stl', '3mf'].includes(job.inputs.mesh.type);
  const up = asked.up && asked.up !== 'auto' ? asked.up : isFlat ? 'z' : 'y';
  return {zUp: up === 'z' && !isNormalised, shared: asked.frame !== 'normalised',
    front: asked.front ?? 'z'};
}
