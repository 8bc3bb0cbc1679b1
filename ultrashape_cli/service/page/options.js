// The options of a job as fields, made of what the service says it takes.

import {make} from './dom.js';

const QUALITIES = {
  draft: 'fast, to see whether a picture fits',
  standard: 'close to max in less time',
  max: 'the plain sampler, slowest',
};
const LABELS = {
  faces: ['Faces of the result', '0 keeps all'],
  colours: ['Colours of the mesh', 'of vertices, in GLB, PLY, OBJ and OFF'],
  keep_full: ['Also the mesh before faces are reduced', ''],
  keep_floaters: ['Keep small loose parts', ''],
  floater_ratio: ['What counts as small', 'share of the largest part'],
  frame: ['Place of the result', 'input: size and place of the coarse mesh'],
  picture: ['Also a picture of input and result', ''],
  metrics: ['Measure the distance to the input', ''],
  up: ['Axis that points up', 'auto: z of STL and 3MF, y of all else'],
  front: ['Axis that the picture looks at', ''],
  background: ['Background of the picture', 'where it has no transparency'],
  repair: ['Close a fragmented mesh first', ''],
  seed: ['Seed', 'the same one gives the same mesh'],
  priority: ['Priority', 'higher ones go first'],
  steps: ['Steps', 'of the sampler; by quality unless given'],
  tokens: ['Most tokens', 'fewer take less memory'],
  grid_resolution: ['Cells along a side', 'of the decoded field'],
  webhook: ['Webhook', 'address that is told when the job ends'],
};
const GROUPS = {
  Input: ['background', 'up', 'front', 'repair'],
  Result: ['faces', 'keep_full', 'colours', 'keep_floaters', 'frame', 'metrics', 'picture'],
  Work: ['seed', 'priority', 'steps', 'tokens', 'grid_resolution', 'webhook'],
};
const spoken = name => name[0].toUpperCase() + name.slice(1).replaceAll('_', ' ');
const ON_TOP = ['quality', 'guidance_scale', 'format', 'model'];

/** Fields for all options; those left alone are not sent, so that the service decides. */
export class Options {
  constructor(known) {
    this.known = known;
    this.readers = {};
    const grouped = new Set([...ON_TOP, ...Object.values(GROUPS).flat()]);
    const rest = Object.keys(known).filter(name => !grouped.has(name));
    const groups = {...GROUPS, 'For experts': rest};
    this.element = make('div', {class: 'options'},
      this.quality(),
      this.strength(),
      make('div', {class: 'pair-of-fields'},
        this.field('format', 'Format of the result'),
        known.model?.enum.length > 1 ? this.field('model', 'Model') : null),
      make('details', {},
        make('summary', {}, 'More options'),
        ...Object.entries(groups).map(([title, names]) => make('fieldset', {},
          make('legend', {}, title),
          ...names.filter(name => known[name]).map(name => this.field(name))))));
  }

  /** Returns the options that are not as the service would choose them. */
  changed() {
    const found = {};
    for (const [name, read] of Object.entries(this.readers)) {
      const value = read();
      if (value !== undefined && value !== this.known[name].default) found[name] = value;
    }
    return found;
  }

  quality() {
    const {enum: names, default: usual} = this.known.quality;
    const box = make('fieldset', {class: 'choice'}, make('legend', {}, 'Quality'),
      ...names.map(name => make('label', {title: QUALITIES[name] ?? ''},
        make('input', {type: 'radio', name: 'quality', value: name, checked: name === usual}),
        make('span', {}, name))));
    const note = make('small', {class: 'wide', 'aria-live': 'polite'});
    const chosen = () => box.querySelector('input:checked').value;
    const tell = () => { note.textContent = QUALITIES[chosen()] ?? ''; };
    box.addEventListener('change', tell);
    box.append(note);
    this.readers.quality = chosen;
    tell();
    return box;
  }

  strength() {
    const usual = this.known.guidance_scale.default;
    const slider = make('input', {type: 'range', id: 'guidance_scale', min: 0, max: 15, step: 0.5,
      value: usual});
    const said = make('output', {for: 'guidance_scale'});
    const reset = make('button', {type: 'button', class: 'small', onclick: () => {
      given = false;
      slider.value = usual;
      tell();
    }}, 'by quality');
    let given = false;
    const tell = () => {
      said.textContent = given ? slider.value === '0' ? 'off' : slider.value : 'by quality';
      slider.setAttribute('aria-valuetext', said.textContent);
      reset.hidden = !given;
    };
    slider.addEventListener('input', () => { given = true; tell(); });
    tell();
    this.readers.guidance_scale = () => given ? Number(slider.value) : undefined;
    return make('div', {class: 'strength'},
      make('label', {for: 'guidance_scale'}, 'How strictly to follow the picture'),
      make('div', {class: 'row'}, slider, said, reset));
  }

  field(name, title) {
    const about = this.known[name];
    const [label, note] = LABELS[name] ?? [title ?? spoken(name), ''];
    const input = this.input(name, about);
    const text = make('label', {for: `option-${name}`}, title ?? label);
    const small = note ? make('small', {id: `note-${name}`}, note) : null;
    if (small) input.setAttribute('aria-describedby', small.id);
    const isSwitch = about.type === 'boolean';
    return make('div', {class: isSwitch ? 'field switch' : 'field'},
      ...(isSwitch ? [input, text] : [text, input]), small);
  }

  input(name, about) {
    const id = `option-${name}`;
    if (about.enum) {
      const select = make('select', {id}, ...about.enum.map(value =>
        make('option', {value, selected: value === about.default}, value)));
      this.readers[name] = () => select.value;
      return select;
    }
    if (about.type === 'boolean') {
      const box = make('input', {id, type: 'checkbox', checked: about.default});
      this.readers[name] = () => box.checked;
      return box;
    }
    if (about.type === 'string') {
      const field = make('input', {id, type: 'url', placeholder: 'https://'});
      this.readers[name] = () => field.value || undefined;
      return field;
    }
    const field = make('input', {id, type: 'number', placeholder: about.default,
      min: about.minimum ?? (about.exclusiveMinimum === 0 ? 1 : null), max: about.maximum,
      step: about.type === 'integer' ? 1 : 'any'});
    this.readers[name] = () => field.value === '' ? undefined : Number(field.value);
    return field;
  }
}
