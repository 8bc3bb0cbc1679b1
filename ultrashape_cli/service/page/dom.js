// Small means to build the page: elements, texts of figures, and the card of an error.

/** Returns an element: `make('p', {class: 'note'}, 'text', child)`; handlers as `onclick`. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

export const byId = id => document.getElementById(id);

export function bytes(size) {
  if (size < 1e3) return `${size} B`;
  const [unit, name] = size < 1e6 ? [1e3, 'kB'] : size < 1e9 ? [1e6, 'MB'] : [1e9, 'GB'];
  return `${(size / unit).toFixed(size / unit < 10 ? 1 : 0)} ${name}`;
}

export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}

export const count = value => value.toLocaleString('en');

export function ago(moment) {
  const seconds = (Date.now() - new Date(moment)) / 1000;
  if (seconds < 60) return 'just now';
  if (seconds < 86400) return `${duration(Math.max(seconds, 90))} ago`;
  return new Date(moment).toLocaleDateString();
}

/** Returns the card that tells an error: the cause, what helps, and a way on. */
export function troubleCard(problem, ...actions) {
  return make('div', {class: 'error'},
    make('p', {}, make('b', {}, sentence(problem.detail ?? problem.message))),
    problem.hint ? make('p', {class: 'hint'}, make('span', {}, 'What helps: '), problem.hint) : null,
    problem.code ? make('small', {}, [problem.status || '', problem.code].join(' ').trim()) : null,
    actions.some(Boolean) ? make('p', {class: 'row'}, ...actions) : null);
}

function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : 'Something went wrong.';
}
