// Numbers, words and sparklines. No state but the history given to spark.

export const unknown = (v) => v === undefined || v === null || v < 0;

// grouped writes an integer with thin spaces: 12 345 678.
export function grouped(n) {
  return unknown(n) ? '–' : String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, '\u202f');
}

// perSecond writes a rate in at most five characters.
export function perSecond(v) {
  if (unknown(v)) return '–';
  if (v >= 1e6) return (v / 1e6).toFixed(v < 1e7 ? 2 : 1) + 'M';
  if (v >= 1e4) return (v / 1e3).toFixed(v < 1e5 ? 1 : 0) + 'k';
  return v > 0 && v < 9.95 ? v.toFixed(1) : String(Math.round(v));
}

export function bytes(v) {
  if (unknown(v)) return '–';
  for (const [unit, size] of [['TiB', 2 ** 40], ['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 2 ** 10]]) {
    if (v >= size) return (v / size).toFixed(v < 10 * size ? 1 : 0) + ' ' + unit;
  }
  return Math.round(v) + ' B';
}

// seconds writes a short time.
export function seconds(v) {
  if (unknown(v)) return '–';
  if (v === 0) return '0 s';
  if (v < 0.001) return Math.round(v * 1e6) + ' µs';
  if (v < 0.01) return (v * 1e3).toFixed(1) + ' ms';
  if (v < 1) return Math.round(v * 1e3) + ' ms';
  if (v < 60) return v.toFixed(1) + ' s';
  return span(v);
}

// span writes a long time by its two largest units.
export function span(v) {
  if (!(v >= 0)) return '–';
  const d = Math.floor(v / 86400), h = Math.floor(v / 3600) % 24, m = Math.floor(v / 60) % 60, s = Math.floor(v) % 60;
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s} s` : `${s} s`;
}

export const clock = (t) => new Date(t).toLocaleTimeString('en-GB');

// text sets an element's text where it differs: what has not changed is not
// laid out again, nor read out again.
export function text(el, value) {
  if (el && el.textContent !== value) el.textContent = value;
}

// make builds an element: make('td', {class: 'num'}, 'text', child, …).
export function make(tag, attrs = {}, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs)) el.setAttribute(name, value);
  el.append(...children);
  return el;
}

const svg = 'http://www.w3.org/2000/svg';

// spark draws values over times (Unix ms) into an <svg>, for the span of
// milliseconds that ends at `end`. Where a value is unknown, or points are more
// than `gap` apart, the line is broken. `floor` is the least that the top of
// the picture stands for, so that noise does not look like a mountain.
export function spark(el, times, values, { end, width, gap, floor, say }) {
  let max = 0, last = -1, line = '', area = '', open = null, previous = 0;
  for (const v of values) max = Math.max(max, v);
  const top = Math.max(max, floor), y = (v) => (31 - 29 * v / top).toFixed(1);
  const x = (t) => (300 - 300 * (end - t) / width).toFixed(1);
  const close = () => {
    if (open !== null) area += `L${x(previous)} 32L${open} 32Z`;
    open = null;
  };
  for (let i = 0; i < times.length; i++) {
    if (times[i] < end - width - gap) continue;
    if (unknown(values[i])) { close(); continue; }
    const at = `${x(times[i])} ${y(values[i])}`;
    if (open !== null && times[i] - previous > gap) close();
    if (open === null) { open = x(times[i]); line += `M${at}`; area += `M${open} 32L${at}`; } else { line += `L${at}`; area += `L${at}`; }
    previous = times[i];
    last = values[i];
  }
  close();
  if (!el.firstChild) {
    el.setAttribute('viewBox', '0 0 300 32');
    el.setAttribute('preserveAspectRatio', 'none');
    for (const name of ['area', 'line']) {
      const p = document.createElementNS(svg, 'path');
      p.setAttribute('class', name);
      el.append(p);
    }
  }
  el.children[0].setAttribute('d', area);
  el.children[1].setAttribute('d', line);
  el.setAttribute('aria-label', last < 0 ? 'no data in the last 15 minutes' : `last 15 minutes: now ${say(last)}, at most ${say(max)}`);
  return max;
}
