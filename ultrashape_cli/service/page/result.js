// What a refinement made, in figures, and its files.

import {bytes, count, duration, make} from './dom.js';

const METRICS = {
  'chamfer_l1': 'Chamfer distance', 'f_score@0.01': 'F-score at 0.01',
  'normal_consistency': 'normals',
};

/** Returns the buttons that save files; `formats` are those in which the service gives meshes. */
export function downloads(job, formats, save) {
  const format = job.options.format;
  const link = (path, text, kind) => make('button', {type: 'button', class: kind,
    onclick: async event => {
      const {target} = event;
      target.disabled = true;
      await save(path);
      target.disabled = false;
    }}, text);
  const base = `/v1/jobs/${job.job_id}/download?file=`;
  const others = formats.filter(each => each !== format);
  const rest = {full: 'All faces', picture: 'Picture', record: 'Record'};
  return make('div', {class: 'row downloads'},
    link(`${base}mesh`, `Save ${format.toUpperCase()}`, 'main'),
    others.length ? make('div', {class: 'joined', role: 'group', 'aria-label': 'Other formats'},
      ...others.map(each => link(`${base}mesh&format=${each}`, each.toUpperCase()))) : null,
    ...Object.entries(rest).filter(([file]) => job.files.includes(file))
      .map(([file, text]) => link(base + file, text)),
    link(`${base}input`, 'Input'), link(`${base}image`, 'Reference'));
}

/** Returns the figures of a result. */
export function figures(job) {
  const found = job.result;
  const seconds = Object.values(found.seconds ?? {}).reduce((sum, each) => sum + each, 0);
  const tiles = [
    ['faces', count(found.faces)],
    'watertight' in found && ['watertight', found.watertight ? 'yes' : `${count(found.open_edges)} `
      + 'open edges', found.watertight ? 'good' : 'bad'],
    'manifold' in found && ['manifold', found.manifold ? 'yes' : 'no',
      found.manifold ? 'good' : 'warn'],
    'components' in found && ['parts', count(found.components)],
    'tokens' in found && ['tokens', count(found.tokens)],
    'passes' in found && ['passes', count(found.passes)],
    ['seconds', seconds.toFixed(1)],
  ].filter(Boolean);
  for (const [name, value] of Object.entries(found.peak_memory_gib ?? {})) {
    tiles.push([`GiB at most, ${name}`, value.toFixed(1)]);
  }
  for (const [name, value] of Object.entries(found.metrics?.to_input ?? {})) {
    if (METRICS[name]) tiles.push([`${METRICS[name]} to the input`, value.toPrecision(3)]);
  }
  return make('div', {},
    straying(found.straying),
    make('div', {class: 'tiles'}, ...tiles.map(([label, value, kind]) =>
      make('div', {class: `tile ${kind ?? ''}`}, make('b', {}, value), make('span', {}, label)))),
    stages(found.seconds ?? {}, seconds));
}

function straying(found) {
  if (!found?.strayed) return '';
  const part = value => `${Math.round(100 * value)} %`;
  return make('div', {class: 'error', role: 'alert'}, make('p', {}, make('b', {},
    'The result has strayed from its input.')),
  make('p', {}, `${part(found.beyond)} of it is far from the input, ${part(found.lost)} of the `
    + 'input is lost. This model may not know such shapes, or the picture shows something else; '
    + 'the input may be the better mesh.'));
}

function stages(seconds, whole) {
  const shown = Object.entries(seconds).filter(([, value]) => value > 0.01 * whole);
  if (!whole || !shown.length) return '';
  const bar = make('div', {class: 'stack', 'aria-hidden': 'true'});
  shown.forEach(([, value], index) => {
    const part = make('i', {class: `f${index % 8}`});
    part.style.width = `${100 * value / whole}%`;
    bar.append(part);
  });
  return make('div', {class: 'card'}, make('h3', {}, 'Where the time went'), bar,
    make('p', {class: 'legend'}, ...shown.map(([name, value], index) =>
      make('span', {class: `key f${index % 8}`}, `${name} ${duration(value)}`))));
}

/** Returns what the job was asked for, closed. */
export function settings(job) {
  const asked = {model: job.model, ...job.options.refine, ...job.options};
  delete asked.refine;
  const rows = [
    ['job', job.job_id],
    ['mesh', `${job.inputs.mesh.name}, ${bytes(job.inputs.mesh.bytes)}`],
    ['picture', `${job.inputs.image.name}, ${bytes(job.inputs.image.bytes)}`],
    ...Object.entries(asked).map(([name, value]) => [name.replaceAll('_', ' '), String(value)]),
    ['sent', new Date(job.created).toLocaleString()],
    ...(job.result?.memory_modes ? [['memory', job.result.memory_modes.join(', then ')]] : []),
  ];
  return make('details', {}, make('summary', {}, 'What was asked'),
    make('div', {class: 'wide'}, make('table', {}, make('tbody', {}, ...rows.map(([name, value]) =>
      make('tr', {}, make('th', {scope: 'row'}, name), make('td', {}, value)))))));
}
