// The nodes as a tree: who gets the replication stream from whom.

import { bytes, grouped, make, perSecond, seconds, text, unknown } from './draw.js';

// forest turns a status into nodes with children, the roots of which it returns:
// {key, address, kind, state, words, offset, lagBytes, lagSeconds, commands, children}.
export function forest(st) {
  const byAddress = new Map(), all = [];
  const add = (n) => { all.push(n); if (!byAddress.has(n.address)) byAddress.set(n.address, n); return n; };
  const rates = new Map((st.lately?.nodes ?? []).map((n) => [n.address, n.read + n.write + n.other]));
  const proxying = (st.listeners ?? []).length > 0;
  for (const n of st.nodes ?? []) {
    add({
      key: n.address, address: n.address, kind: n.role === 'master' && !(st.ready && n === st.nodes[0]) ? 'was master' : n.role, follows: n.follows, ...judge(n, st),
      offset: n.offset, lagBytes: n.role === 'master' ? -1 : n.lag_bytes, lagSeconds: n.role === 'master' ? -1 : n.lag_seconds,
      commands: proxying ? rates.get(n.address) ?? 0 : -1, children: [],
    });
  }
  if (st.relay) addRelay(st, add, byAddress);
  return grow(all, byAddress);
}

// judge says in words what the node is doing, and how bad that is.
function judge(n, st) {
  if (!n.up) return { state: 'bad', words: n.reason && n.reason !== 'down' ? n.reason : 'does not answer' };
  if (n.role === 'master' && n === st.nodes[0] && !n.reason) return st.ready ? { state: 'info', words: 'takes writes' } : { state: 'warn', words: 'not taken for the master' };
  if (n.reads) return { state: 'good', words: 'gets reads' };
  return { state: 'warn', words: 'no reads: ' + (n.reason || 'reason unknown') };
}

function addRelay(st, add, byAddress) {
  const r = st.relay, d = r.downstream, address = d?.address || 'relay of this sluice';
  const linked = r.link.state === 'connected';
  // What it has stored may be told in time only where the link stands.
  const head = st.nodes?.[0]?.offset, behind = linked && !unknown(head) && !unknown(r.store.committed) ? Math.max(0, head - r.store.committed) : -1;
  const shown = byAddress.get(address);
  const relay = shown ?? add({ key: 'relay', address, children: [] });
  Object.assign(relay, {
    kind: 'relay', follows: r.link.master, offset: r.store.committed, lagBytes: behind, lagSeconds: -1, commands: -1,
    state: r.ready && linked ? 'good' : linked ? 'warn' : 'bad',
    words: linked ? (r.ready ? 'captures the stream' : r.reason || 'not ready') : `link ${r.link.state}${r.link.error ? ': ' + r.link.error : ''}`,
  });
  if (r.link.master && !byAddress.has(r.link.master)) {
    add({ key: r.link.master, address: r.link.master, kind: 'master', state: linked ? 'info' : 'warn', words: linked ? 'feeds the relay' : 'not linked', offset: -1, lagBytes: -1, lagSeconds: -1, commands: -1, children: [] });
  }
  (d?.replicas ?? []).forEach((x, i) => {
    const known = byAddress.get(x.address);
    if (known) { known.under = relay; return; }
    const loading = x.state === 'transfer' && x.base > 0 ? `, ${Math.floor(100 * x.base_out / x.base)} % of the base sent` : '';
    add({
      key: `downstream ${x.address || i}`, address: x.name || x.address || `replica ${i + 1}`, kind: 'downstream', under: relay, offset: x.offset, lagBytes: x.lag, lagSeconds: -1, commands: -1,
      state: x.state === 'online' ? 'good' : 'warn', words: (x.state === 'online' ? 'follows the relay' : x.state) + loading, children: [],
    });
  });
  for (const n of st.nodes ?? []) if (n.follows === address && byAddress.get(n.address) !== relay) byAddress.get(n.address).under = relay;
}

// grow hangs each node under the one that it follows. What hangs nowhere, or in
// a ring, stands by itself.
function grow(all, byAddress) {
  const roots = [], seen = new Set();
  for (const n of all) {
    const parent = n.under ?? byAddress.get(n.follows);
    if (parent && parent !== n) parent.children.push(n); else roots.push(n);
  }
  const visit = (n) => {
    seen.add(n);
    n.children = n.children.filter((c) => !seen.has(c));
    n.children.sort((a, b) => (a.kind === 'relay') - (b.kind === 'relay') || (a.address < b.address ? -1 : 1));
    n.children.forEach(visit);
  };
  roots.forEach(visit);
  for (const n of all) if (!seen.has(n)) { roots.push(n); visit(n); }
  return roots;
}

// Tree shows a forest in a <ul>. The rows are kept as long as the shape is the
// same, so that nothing jumps.
export class Tree {
  constructor(ul) { this.ul = ul; this.shape = ''; this.rows = new Map(); }

  show(roots) {
    const outline = (n) => [n.key, n.children.map(outline)];
    const shape = JSON.stringify(roots.map(outline));
    if (shape !== this.shape) {
      this.shape = shape;
      this.rows.clear();
      this.ul.replaceChildren(...roots.map((n) => this.item(n, 0)));
      if (!roots.length) this.ul.append(make('li', { class: 'empty' }, 'No node is known.'));
    }
    const fill = (n) => { this.fill(n); n.children.forEach(fill); };
    roots.forEach(fill);
  }

  item(n, depth) {
    const cell = (cls, label) => { const v = make('span'); return [make('span', { class: cls }, make('span', { class: 'label' }, label), v), v]; };
    const r = { dot: make('span', { class: 'dot', 'aria-hidden': 'true' }), words: make('span', { class: 'words' }), role: make('span', { class: 'role' }) };
    r.state = make('span', { class: 'state' }, r.dot, r.words);
    const [offset, ov] = cell('num offset', 'offset'), [behind, bv] = cell('num behind', 'behind by'), [lag, lv] = cell('num for', 'for'), [rate, rv] = cell('num rate', 'commands/s');
    Object.assign(r, { ov, bv, lv, rv });
    r.spark = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    r.spark.setAttribute('class', 'spark late');
    r.spark.setAttribute('role', 'img');
    const name = make('span', { class: 'name' }, make('span', { class: 'addr' }, n.address), r.role);
    const li = make('li', {}, make('div', { class: 'row' }, name, r.state, offset, behind, lag, make('span', { class: 'past' }, r.spark), rate));
    li.style.setProperty('--depth', depth);
    this.rows.set(n.key, r);
    if (n.children.length) {
      const ul = make('ul', {}, ...n.children.map((c) => this.item(c, depth + 1)));
      li.append(ul);
    }
    return li;
  }

  fill(n) {
    const r = this.rows.get(n.key);
    if (!r) return;
    r.state.className = 'state ' + n.state;
    text(r.words, n.words);
    r.role.className = 'role ' + n.kind.replace(' ', '-');
    text(r.role, n.kind === 'unknown' ? 'role unknown' : n.kind);
    text(r.ov, grouped(n.offset));
    text(r.bv, bytes(n.lagBytes));
    text(r.lv, seconds(n.lagSeconds));
    text(r.rv, perSecond(n.commands));
  }
}
