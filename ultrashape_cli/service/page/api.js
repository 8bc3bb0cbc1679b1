// Requests to the service: token, errors as it tells them, uploads, events and files.

const TOKEN = 'ushape.token';
export const ENDED = new Set(['done', 'failed', 'cancelled']);
const FIRST_PAUSE_MS = 500, LONGEST_PAUSE_MS = 15000;

/** An error of the service (RFC 9457), or of the way to it: what is wrong, and what helps. */
export class Problem extends Error {
  constructor({status = 0, code = 'unreachable', detail, hint = '', retry = 0}) {
    super(detail);
    Object.assign(this, {status, code, detail, hint, retry});
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? '',
  set: value => value ? sessionStorage.setItem(TOKEN, value) : sessionStorage.removeItem(TOKEN),
};

/** Returns a random text; `crypto.randomUUID` is there for https and this machine only. */
export function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))]
    .map(byte => byte.toString(16).padStart(2, '0')).join('');
}

export const pause = (ms, signal) => new Promise(resolve => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, {once: true});
});

/** Throws where a file cannot be read any more: one that was saved anew since it was chosen. */
async function requireReadable(files) {
  for (const file of files) {
    try {
      await file.slice(0, 1).arrayBuffer();
    } catch {
      throw new Problem({
        status: 422,
        code: 'gone',
        detail: `${file.name} has changed or gone since it was chosen.`,
        hint: 'Choose it again.',
      });
    }
  }
}

/** Returns what is thrown where a request, or a part of it, did not arrive. */
export function unreachable() {
  return new Problem({
    detail: 'The service does not answer.',
    hint: 'It may be starting anew: jobs that it has taken are kept. Is the network up?',
  });
}

function authorised(headers = {}) {
  return token.get() ? {...headers, Authorization: `Bearer ${token.get()}`} : headers;
}

function problemOf(status, text, retry) {
  let told = {};
  try {
    told = JSON.parse(text);
  } catch {
    // Something between here and the service has answered in its stead.
    told = {detail: `The answer was ${status}, without a reason.`, code: 'error'};
  }
  return new Problem({...told, status, retry: Number(retry) || 0});
}

/** Returns the answer to a request; throws a Problem where it is an error. */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, {...options, headers: authorised(options.headers)});
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw unreachable();
  }
  if (!response.ok) {
    const text = await response.text().catch(() => '');
    throw problemOf(response.status, text, response.headers.get('Retry-After'));
  }
  return response;
}

export const ask = async (path, options) => (await request(path, options)).json();

/** Sends a form and returns the answer; `onSent` gets the part that is sent, from 0 to 1. */
export async function upload(form, key, onSent, signal) {
  await requireReadable([...form.values()].filter(value => value instanceof File));
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();  // fetch does not tell how much is sent
    sending.open('POST', '/v1/refine');
    sending.setRequestHeader('Idempotency-Key', key);
    for (const [name, value] of Object.entries(authorised())) {
      sending.setRequestHeader(name, value);
    }
    sending.upload.onprogress = event => onSent(event.loaded / event.total);
    sending.onerror = () => reject(unreachable());
    sending.onabort = () => reject(new Problem({code: 'stopped', detail: 'The upload was stopped.'}));
    sending.onload = () => {
      if (sending.status === 202) resolve(JSON.parse(sending.responseText));
      else reject(problemOf(sending.status, sending.responseText,
        sending.getResponseHeader('Retry-After')));
    };
    signal.addEventListener('abort', () => sending.abort(), {once: true});
    sending.send(form);
  });
}

/** Reads server-sent events: kind, id and data. */
export async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const found = {};
      for (const line of block.split(/\r?\n/)) {
        const [, name, text] = /^(\w*): ?(.*)$/.exec(line) ?? [];
        if (name) found[name] = text;
      }
      if (found.event) {
        yield {kind: found.event, id: found.id ?? '', data: JSON.parse(found.data || '{}')};
      }
    }
  }
}

/** Follows a job until it ends; goes on after the last event that came where a line is lost. */
export async function follow(job, onEvent, signal) {
  let last = '', wait = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    try {
      const headers = last ? {'Last-Event-ID': last} : {};
      const response = await request(`/v1/jobs/${job}/events`, {headers, signal});
      for await (const event of eventsOf(response.body)) {
        last = event.id || last;
        wait = FIRST_PAUSE_MS;
        onEvent(event);
        if (ENDED.has(event.kind)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      // A line that breaks is no Problem. What asking again does not mend is told by the poll.
      if (error instanceof Problem && [401, 403, 404].includes(error.status)) return;
    }
    await pause(wait, signal);
    wait = Math.min(2 * wait, LONGEST_PAUSE_MS);
  }
}

/** Saves a file of the service under the name that it gives. */
export async function save(path) {
  const response = await request(path);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await response.blob());
  link.download = nameIn(response.headers.get('Content-Disposition') ?? '');
  link.click();
  // The browser has the file only once it has begun to write it.
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

function nameIn(disposition) {
  const coded = /filename\*=utf-8''([^;]+)/i.exec(disposition);
  if (coded) return decodeURIComponent(coded[1]);
  return /filename="([^"]+)"/i.exec(disposition)?.[1] ?? 'ushape';
}
