// The status page: listens to api/status/stream and shows what comes.

import { bytes, clock, grouped, make, perSecond, seconds, span, spark, text, unknown } from './draw.js';
import { Tree, forest } from './tree.js';

const $ = (id) => document.getElementById(id);
const tree = new Tree($('tree'));
let past = null; // the history: a list for each figure
let lastStatus = null, lastAt = 0;

// The reasons of sluice_proxy_routed_total in plain words, in the order shown.
const reasons = [
  ['replica', 'replica', 'A replica that is far enough', ''],
  ['replica', 'other_zone', 'A replica of another zone', 'of the own one there is none that may answer'],
  ['master', 'nearest', 'The master was as good as any', 'read_from: nearest, and it had fewer requests in flight'],
  ['master', 'fence_fresh', 'Just written', 'the key was written within the last milliseconds'],
  ['master', 'fence_behind', 'No replica had the write yet', 'the replicas lag'],
  ['master', 'index_late', 'No replica could answer in time', 'linearizable read'],
  ['master', 'no_replica', 'No replica may be read', 'see the nodes above for the reason of each'],
  ['master', 'master_policy', 'Asked for by the listener', 'consistency or read_from says master'],
  ['master', 'mixed_pipeline', 'In one pipeline with writes', 'send reads in a pipeline of their own'],
  ['master', 'behind_write', 'Behind an unanswered write', 'of the same client'],
  ['master', 'node_local', 'The answer depends on the node', 'SCAN, DBSIZE, RANDOMKEY and the like'],
  ['master', 'keys_unknown', 'The keys cannot be told', 'KEYS, EVAL_RO without keys'],
  ['retry', 'retry', 'Sent again', 'a node refused it or its connection broke'],
  ['rest', 'write', 'Writes', 'to the master'],
  ['rest', 'other', 'Neither read nor write', 'to the master'],
  ['rest', 'pinned', 'On a connection of their own', 'transactions, blocking commands, subscriptions'],
  ['rest', 'local', 'Answered by Sluice itself', 'PING, HELLO, AUTH, SELECT and the like'],
  ['rest', 'denied', 'Refused by Sluice', 'denied_commands'],
];
const groups = { replica: 'Reads on replicas', master: 'Reads on the master', retry: 'On top of these', rest: 'Everything else' };
const kinds = {
  known: ['known', 'quiet'], forgotten: ['forgotten', 'quiet'], down: ['down', 'bad'], up: ['up', 'good'], reads: ['reads', 'good'],
  ejected: ['no reads', 'warn'], resync: ['full resync', 'warn'], master_lost: ['master lost', 'bad'], master: ['master', 'info'], failover: ['failover', 'info'],
  // The relay's.
  link_up: ['link up', 'good'], link_down: ['link down', 'bad'], base: ['base', 'info'], base_failed: ['no base', 'warn'],
  full_resync: ['full sync', 'warn'], partial_resync: ['partial sync', 'good'], replica_gone: ['gone', 'warn'], store_down: ['store', 'bad'], store_up: ['store', 'good'],
};

function showVerdict(st) {
  const nodes = st.nodes ?? [], silent = nodes.filter((n) => !n.up).length;
  const unread = nodes.filter((n, i) => n.up && !n.reads && i > 0).length;
  const proxying = (st.listeners ?? []).length > 0;
  let state = 'good', words = proxying ? 'Serving' : 'Relaying';
  if (st.draining) [state, words] = ['warn', 'Draining: no new clients'];
  else if (!proxying && !st.ready) [state, words] = ['bad', 'Not ready: ' + (st.relay?.reason || 'no base is stored yet')];
  else if (!st.ready) [state, words] = ['bad', 'No master: writes wait'];
  else if (silent) [state, words] = ['warn', `Serving; ${silent} of ${nodes.length} nodes down`];
  else if (unread) [state, words] = ['warn', `Serving; ${unread} of ${nodes.length} nodes not read`];
  else if (st.relay && !st.relay.ready) [state, words] = ['warn', 'Serving; the relay is not ready'];
  $('verdict').className = 'verdict ' + state;
  text($('verdict-text'), words);
  document.title = state === 'good' ? 'Sluice' : words + ' · Sluice';
}

function showFacts(st) {
  text($('clients'), grouped(st.clients));
  text($('epoch'), grouped(st.epoch));
  const began = Date.parse(st.started);
  text($('uptime'), began > 0 ? span((Date.parse(st.time) - began) / 1000) : '–');
  text($('as-of'), clock(st.time));
  text($('version'), st.version ? 'Version ' + st.version + '.' : '');
  const sentinels = st.sentinels ?? [];
  $('sentinels').hidden = !sentinels.length;
  text($('sentinels'), 'Sentinels: ' + sentinels.map((s) => s.address + (s.up ? ' up' : ' down' + (s.error ? ' (' + s.error + ')' : ''))).join(', '));
}

function showTiles(st) {
  const l = st.lately;
  text($('t-read'), perSecond(l?.read));
  text($('t-write'), perSecond(l?.write));
  text($('t-other'), perSecond(l?.other));
  text($('t-p99'), seconds(l?.p99_seconds));
  const worst = worstLag(st);
  text($('t-lag'), worst ? seconds(worst.lag_seconds) : '–');
  text($('n-lag'), worst ? `${bytes(worst.lag_bytes)} · ${worst.address}` : 'no replica tells it');
  if (!past) return;
  const end = Date.parse(st.time), common = { end, width: past.span * 1000, gap: past.step * 3000 };
  const draw = (id, values, floor, say) => spark($('s-' + id), past.times, values, { ...common, floor, say });
  const rate = (v) => perSecond(v) + '/s';
  for (const id of ['read', 'write', 'other']) text($('n-' + id), `max ${rate(draw(id, past[id], 10, rate))} in 15 min`);
  draw('p99', past.p99, 0.001, seconds);
  text($('n-p99'), l && !unknown(l.p50_seconds) ? `half within ${seconds(l.p50_seconds)}` : 'no commands lately');
  const lags = past.times.map((_, i) => past.nodes.reduce((m, n) => Math.max(m, n.lag_seconds[i]), -1));
  draw('lag', lags, 1, seconds);
  for (const n of past.nodes) {
    const row = tree.rows.get(n.address);
    if (row) spark(row.spark, past.times, n.lag_seconds, { ...common, floor: 1, say: seconds });
  }
}

function worstLag(st) {
  const lagging = (st.nodes ?? []).filter((n) => n.role === 'replica' && !unknown(n.lag_seconds));
  return lagging.reduce((a, b) => (!a || b.lag_seconds > a.lag_seconds || (b.lag_seconds === a.lag_seconds && b.lag_bytes > a.lag_bytes) ? b : a), null);
}

function showWhy(st) {
  const total = st.traffic?.routed ?? {}, lately = st.lately?.routed ?? {};
  const sum = (group, of) => reasons.reduce((n, [g, key]) => (g === group ? n + (of[key] ?? 0) : n), 0);
  const recent = sum('replica', lately) + sum('master', lately) > 0, of = recent ? lately : total;
  const replica = sum('replica', of), master = sum('master', of), all = replica + master;
  text($('why-span'), recent ? `last ${span(st.lately.routed_seconds)}` : 'since start');
  const split = $('why-split');
  if (!split.firstChild) split.append(make('span', { class: 'on-replica' }), make('span', { class: 'on-master' }));
  split.children[0].style.width = all ? 100 * replica / all + '%' : '0';
  split.children[1].style.width = all ? 100 * master / all + '%' : '0';
  const percent = (n) => (100 * n / all).toFixed(n === all || n === 0 ? 0 : 1) + ' %';
  text($('why-legend'), all ? `${percent(replica)} on replicas, ${percent(master)} on the master` : 'No reads yet.');
  const rows = reasons.filter(([, key]) => total[key] > 0);
  const body = $('why'), shape = rows.map((r) => r[1]).join();
  if (body.dataset.shape !== shape) {
    body.dataset.shape = shape;
    body.replaceChildren();
    let group = '';
    for (const [g, key, words, more] of rows) {
      if (g !== group) body.append(make('tr', { class: 'group' }, make('td', { colspan: 3 }, groups[g])));
      group = g;
      const what = make('td', {}, make('span', { class: 'swatch on-' + g, 'aria-hidden': 'true' }), words);
      if (more) what.append(make('span', { class: 'why-text' }, more));
      body.append(make('tr', { 'data-key': key }, what, make('td', { class: 'num' }), make('td', { class: 'num' })));
    }
    if (!rows.length) body.append(make('tr', {}, make('td', { colspan: 3, class: 'empty' }, 'Nothing has passed yet.')));
  }
  for (const tr of body.querySelectorAll('tr[data-key]')) {
    text(tr.children[1], perSecond(lately[tr.dataset.key] ?? 0));
    text(tr.children[2], grouped(total[tr.dataset.key]));
  }
}

function showTraffic(st) {
  const body = $('traffic'), nodes = st.nodes ?? [], rates = new Map((st.lately?.nodes ?? []).map((n) => [n.address, n]));
  const shape = nodes.map((n) => n.address).join();
  if (body.dataset.shape !== shape) {
    body.dataset.shape = shape;
    body.replaceChildren(...nodes.map((n) => make('tr', {}, make('td', {}, n.address, make('span', { class: 'bar', 'aria-hidden': 'true' })),
      ...[0, 1, 2, 3].map(() => make('td', { class: 'num' })))));
    if (!nodes.length) body.append(make('tr', {}, make('td', { colspan: 5, class: 'empty' }, 'No node is known.')));
  }
  const sum = [...rates.values()].reduce((s, n) => s + n.read + n.write + n.other, 0);
  nodes.forEach((n, i) => {
    const r = rates.get(n.address) ?? { read: 0, write: 0, other: 0 }, share = sum ? (r.read + r.write + r.other) / sum : 0, tr = body.children[i];
    [perSecond(r.read), perSecond(r.write), perSecond(r.other), (100 * share).toFixed(0) + ' %'].forEach((v, j) => text(tr.children[j + 1], v));
    tr.querySelector('.bar').style.width = 100 * share + '%';
  });
}

function showRelay(st) {
  const r = st.relay;
  $('relay').hidden = !r;
  if (!r) return;
  const s = r.store, from = unknown(s.first) ? s.base?.offset : s.first, low = Math.min(from ?? 0, s.base?.offset ?? from ?? 0), high = Math.max(s.committed, r.link.received ?? -1);
  const at = (o) => (unknown(o) || high <= low ? 0 : Math.min(100, Math.max(0, 100 * (o - low) / (high - low))));
  const [log, durable, base] = $('range').children;
  log.style.left = durable.style.left = at(from) + '%';
  log.style.width = Math.max(0, at(s.committed) - at(from)) + '%';
  durable.style.width = Math.max(0, at(s.fsynced) - at(from)) + '%';
  base.style.left = `min(${at(s.base?.offset)}%, 100% - 3px)`;
  base.hidden = !s.base;
  text($('range-first'), `log from ${grouped(s.first)}`);
  text($('range-last'), `to ${grouped(s.committed)}, durable to ${grouped(s.fsynced)}`);
  $('range').setAttribute('aria-label', `stored: log from ${s.first} to ${s.committed}` + (s.base ? `, base at ${s.base.offset}` : ', no base'));
  const facts = [
    ['link', r.link.state + (r.link.master ? ' to ' + r.link.master : ''), r.link.state !== 'connected'],
    ['store', `${s.state}, ${bytes(s.log_bytes)} of log, ${s.generations} generation${s.generations === 1 ? '' : 's'}`, s.state !== 'writable'],
    ['base', s.base ? `${bytes(s.base.bytes)} at ${grouped(s.base.offset)}, ${span((Date.parse(st.time) - Date.parse(s.base.time)) / 1000)} old, from ${s.base.source}` : 'none yet', !s.base],
    ['acknowledged', `${grouped(r.link.acked)}, ${bytes(r.link.buffered)} in memory`, false],
    ['replicas', r.downstream ? `${r.downstream.replicas.length} at ${r.downstream.address}` : 'not served: no relay.listen', false],
    ['directory', s.dir, false],
  ];
  for (const [name, err] of [['problem', r.reason], ['store error', s.error], ['link error', r.link.error], ['base error', r.link.base_error]]) if (err) facts.push([name, err, true]);
  const dl = $('relay-facts'), shape = facts.map((f) => f[0]).join();
  if (dl.dataset.shape !== shape) {
    dl.dataset.shape = shape;
    dl.replaceChildren(...facts.flatMap(([name]) => [make('dt', {}, name), make('dd')]));
  }
  facts.forEach(([, value, bad], i) => { const dd = dl.children[2 * i + 1]; text(dd, value); dd.className = bad ? 'bad' : ''; });
}

function showEvents(st) {
  const list = $('events'), own = st.events ?? [], relay = st.relay?.events ?? [], newest = `${st.started} ${own[0]?.seq} ${relay[0]?.seq}`;
  const events = [...own, ...relay].sort((a, b) => Date.parse(b.time) - Date.parse(a.time)); // stable
  if (list.dataset.newest === newest || !events.length) return;
  list.dataset.newest = newest;
  list.replaceChildren(...events.map((e) => {
    const [word, level] = kinds[e.kind] ?? [e.kind, 'quiet'];
    return make('li', { 'data-kind': e.kind }, make('time', { datetime: e.time, title: new Date(e.time).toString() }, clock(e.time)), make('span', { class: 'kind ' + level }, word), make('span', { class: 'what' }, make('span', { class: 'mono' }, e.node), ' ' + e.text));
  }));
}

// remember adds the point of a status to the history that came first.
function remember(st) {
  const l = st.lately;
  if (!past || !l) return;
  const at = Date.parse(l.time), n = past.times.length;
  if (n && at <= past.times[n - 1]) return;
  past.times.push(at);
  for (const id of ['read', 'write', 'other']) past[id].push(l[id]);
  past.p50.push(l.p50_seconds);
  past.p99.push(l.p99_seconds);
  for (const node of l.nodes) {
    if (!past.nodes.some((x) => x.address === node.address)) {
      past.nodes.push({ address: node.address, commands: Array(n).fill(-1), lag_bytes: Array(n).fill(-1), lag_seconds: Array(n).fill(-1) });
    }
  }
  for (const x of past.nodes) {
    const node = l.nodes.find((y) => y.address === x.address);
    x.commands.push(node ? node.read + node.write + node.other : -1);
    x.lag_bytes.push(node ? node.lag_bytes : -1);
    x.lag_seconds.push(node ? node.lag_seconds : -1);
  }
  while (past.times.length && past.times[0] < at - past.span * 1000) {
    for (const list of [past.times, past.read, past.write, past.other, past.p50, past.p99]) list.shift();
    for (const x of past.nodes) { x.commands.shift(); x.lag_bytes.shift(); x.lag_seconds.shift(); }
  }
}

function show(st) {
  lastStatus = st;
  lastAt = performance.now();
  $('main').classList.remove('stale');
  remember(st);
  tree.show(forest(st));
  showVerdict(st);
  showFacts(st);
  showTiles(st);
  showWhy(st);
  showTraffic(st);
  showRelay(st);
  showEvents(st);
  document.documentElement.dataset.shown = st.time; // for who waits for it
}

function listen() {
  const source = new EventSource('api/status/stream');
  source.addEventListener('history', (e) => { past = JSON.parse(e.data); });
  source.addEventListener('status', (e) => show(JSON.parse(e.data)));
  source.addEventListener('error', () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000); // refused: too many streams, say
  });
}

// Without news for three seconds, the page says so instead of looking live.
setInterval(() => {
  if (performance.now() - lastAt < 3500) return;
  $('main').classList.toggle('stale', lastStatus !== null);
  $('verdict').className = 'verdict bad';
  text($('verdict-text'), lastStatus ? `No news from Sluice since ${clock(lastStatus.time)}` : 'No answer from Sluice');
  document.title = 'No news · Sluice';
}, 500);

const themes = ['auto', 'light', 'dark'];
function setTheme(name) {
  if (name === 'auto') delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  text($('theme'), 'Theme: ' + name);
  try { localStorage.setItem('theme', name); } catch { /* kept for this visit only */ }
}
function savedTheme() {
  try { return themes.includes(localStorage.getItem('theme')) ? localStorage.getItem('theme') : 'auto'; } catch { return 'auto'; }
}
$('theme').addEventListener('click', () => setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme ?? 'auto') + 1) % 3]));
setTheme(savedTheme());
listen();
