// The live page: an ordinary client of the API. It follows GET /v1/watch and shows what it has heard.
// Data only ever become text nodes, never markup. What is drawn is keyed, so that focus survives each change.
'use strict';

const SILENT_S = 25; // the server says something every 10 s: a longer silence is a broken connection
const STALE_S = 14;
const MOST_EVENTS = 200;
const TOKEN = 'wherry-token';
const TONES = {
  healthy: 'good', complete: 'good', scheduled: 'good', blocked: 'bad', failed: 'bad', crashLoop: 'bad', degraded: 'warn', suspended: 'quiet',
};
const ROLLOUT_TONES = { waiting: 'warn', paused: 'quiet', failed: 'bad', reverted: 'bad' };
const $ = (id) => document.getElementById(id);

let cluster = emptyCluster(); // what is shown
let heardAt = 0; // when the server last said anything
let liveState = 'off'; // off | connecting | live
let retryAt = 0;
let shownDetails = null; // {type, id} of what the dialog shows
let drawing = false;

function emptyCluster() {
  return { node: new Map(), workload: new Map(), allocation: new Map(), events: [], revision: 0, frozen: null, asked: 0 };
}

// ---- following the cluster -----------------------------------------------------------------------------------

class NotAllowed extends Error {}

/** Follow the cluster for ever; after a failure, again from the start, at growing intervals. */
async function follow() {
  for (let failures = 0; ; ) {
    const began = Date.now();
    try {
      await followOnce(token());
    } catch (error) {
      if (error instanceof NotAllowed) await signIn(error.message);
    }
    liveState = 'off';
    failures = Date.now() - began > 30_000 ? 1 : failures + 1;
    const waitMs = Math.min(15_000, 500 * 2 ** failures) * (0.5 + Math.random() / 2);
    retryAt = Date.now() + waitMs;
    draw();
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

/** Read one stream to its end. What it begins with is gathered aside and takes the place of the old when complete. */
async function followOnce(bearer) {
  liveState = 'connecting';
  draw();
  const stop = new AbortController();
  const headers = { Authorization: `Bearer ${bearer}` };
  let lastByte = Date.now();
  const watchdog = setInterval(() => Date.now() - lastByte > SILENT_S * 1000 && stop.abort(), 1000);
  try {
    const answer = await fetch('/v1/watch', { headers, signal: stop.signal, cache: 'no-store' });
    if (answer.status === 401 || answer.status === 403) throw new NotAllowed('The token was not accepted.');
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const fresh = emptyCluster();
    const events = await fetch(`/v1/events?limit=${MOST_EVENTS}`, { headers, signal: stop.signal });
    if (events.ok) fresh.events = (await events.json()).items;
    await askWhetherFrozen(fresh, headers, stop.signal);
    for await (const change of lines(answer.body)) {
      lastByte = heardAt = Date.now();
      take(fresh, change);
      if (tellsOfFreeze(change)) askWhetherFrozen(fresh, headers, stop.signal);
      if (change.type === 'synced') {
        cluster = fresh;
        liveState = 'live';
      }
      draw();
    }
  } finally {
    clearInterval(watchdog);
    stop.abort();
  }
}

/** The stream tells of the cluster itself only by events: they, and each pause, are the time to look. */
const tellsOfFreeze = ({ type, object }) => type === 'progress' || (type === 'event' && object.subject === 'cluster/freeze');

/** Ask for what is at least as new as all that was heard. Should it fail, the next pause comes within seconds. */
async function askWhetherFrozen(into, headers, signal) {
  try {
    const least = { 'Wherry-Min-Revision': String(into.revision) };
    const answer = await fetch('/v1/cluster', { headers: { ...headers, ...least }, signal, cache: 'no-store' });
    if (!answer.ok) return;
    const { frozen, revision } = await answer.json();
    if (revision < into.asked) return; // overtaken by a newer one
    into.asked = revision;
    into.frozen = frozen;
    draw();
  } catch {
    // the stream has ended, or this one call went astray
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ''; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n');
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
}

function take(into, change) {
  into.revision = Math.max(into.revision, change.revision);
  if (change.type === 'event') {
    const others = into.events.filter((e) => eventKey(e) !== eventKey(change.object));
    into.events = [...others, change.object].slice(-MOST_EVENTS);
  } else if (change.type in into) {
    const id = idOf(change.type, change.object);
    if (change.action === 'delete') into[change.type].delete(id);
    else into[change.type].set(id, change.object);
  }
}

function idOf(type, object) {
  if (type === 'allocation') return object.id;
  return type === 'node' ? object.name : `${object.namespace}/${object.kind}/${object.name}`;
}

// A stored event has an id, and comes again with each time that it is counted; one that is only told live has none.
const eventKey = (event) => event.id || `${event.revision} ${event.at} ${event.subject} ${event.reason} ${event.message}`;

// ---- the token -----------------------------------------------------------------------------------------------

function token() {
  return sessionStorage.getItem(TOKEN) ?? '';
}

/** Take the token out of the address, so that it stays in no history and in no screenshot. */
function takeTokenFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get('token');
  if (given) {
    sessionStorage.setItem(TOKEN, given);
    history.replaceState(null, '', location.pathname + location.search);
  }
}

/** Ask for a token until one is given. */
function signIn(why) {
  if (token()) $('sign-in-why').textContent = `${why} Look for another one, for example in the server's data folder.`;
  sessionStorage.removeItem(TOKEN);
  liveState = 'off';
  draw();
  const dialog = $('sign-in');
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    $('sign-in-form').onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(TOKEN, $('token').value.trim());
      $('token').value = '';
      dialog.close();
      resolve();
    };
  });
}

// ---- drawing -------------------------------------------------------------------------------------------------

/** Make an element with text. */
function make(tag, className = '', text = '') {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}

/** Set text only where it differs, so that a selection survives. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Make the children of `parent` those of `items`, in order, keeping the elements of items that stay. */
function sync(parent, items, keyOf, create, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = old.get(key);
    if (!child) {
      child = create(item);
      child.dataset.key = key;
    }
    old.delete(key);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  for (const child of old.values()) child.remove();
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawLink();
    drawFrozen();
    drawBrake();
    drawNodes();
    drawWorkloads();
    drawEvents();
    drawDetails();
    say($('summary'), summary());
  });
}

const sorted = (map) => [...map.entries()].sort(([a], [b]) => a.localeCompare(b, 'en', { numeric: true })).map(([, o]) => o);
const counted = (n, word) => `${n} ${word}${n === 1 ? '' : 's'}`;

function summary() {
  if (!heardAt) return 'Waiting for the cluster.';
  const nodes = [...cluster.node.values()];
  const workloads = [...cluster.workload.values()];
  const blocked = workloads.filter((w) => w.state === 'blocked').length;
  const lost = nodes.filter((n) => n.state === 'lost').length;
  const suspect = nodes.filter((n) => n.state === 'suspect').length;
  const ailing = [lost && `${lost} lost`, suspect && `${suspect} suspect`].filter(Boolean).join(', ');
  const running = [...cluster.allocation.values()].filter((a) => a.phase === 'running').length;
  const parts = [
    counted(nodes.length, 'node') + (ailing ? ` (${ailing})` : ''),
    counted(workloads.length, 'workload') + (blocked ? ` (${blocked} blocked)` : ''),
    `${counted(running, 'allocation')} running`,
  ];
  return parts.join(' · ');
}

function drawLink() {
  const silentS = heardAt ? Math.round((Date.now() - heardAt) / 1000) : 0;
  const isStale = heardAt > 0 && (liveState !== 'live' || silentS > STALE_S);
  document.body.classList.toggle('stale', isStale);
  $('link').dataset.tone = isStale ? 'bad' : liveState === 'live' ? 'good' : 'quiet';
  const againS = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  const again = liveState === 'off' && againS ? `trying again in ${againS} s` : 'connecting';
  if (isStale) say($('link'), `stale: last heard ${silentS} s ago${liveState === 'live' ? '' : `, ${again}`}`);
  else say($('link'), liveState === 'live' ? `live, revision ${cluster.revision}` : again);
}

/** Say that the leader changes nothing, who wants that, and why. */
function drawFrozen() {
  const { frozen } = cluster;
  $('frozen').hidden = !frozen;
  if (!frozen) return;
  const since = frozen.since ? ` since ${when(frozen.since)}` : '';
  const told = `${frozen.by ? `, by ${frozen.by}` : ''}${frozen.reason ? `: ${frozen.reason}` : ''}`;
  say($('frozen'), `The cluster is frozen${since}${told}. Nothing is placed, stopped or started by its schedule ` +
    'until someone runs: wherry unfreeze');
}

/** Say that most nodes fell silent at once, and that none of them is called lost for a while. */
function drawBrake() {
  const held = sorted(cluster.node).filter((n) => n.brake);
  $('brake').hidden = held.length === 0;
  if (!held.length) return;
  const until = new Date(held[0].brake.until).toLocaleTimeString([], { hour12: false });
  const since = new Date(held[0].brake.since).toLocaleTimeString([], { hour12: false });
  say($('brake'), `The brake on mass loss is on since ${since}: ${held.map((n) => n.name).join(', ')} fell silent at once, so ` +
    `none of them is called lost and nothing is replaced until ${until}. Gone for good? wherry node confirm-lost --all`);
}

// ---- nodes, each a boat with its cargo -----------------------------------------------------------------------

function drawNodes() {
  const nodes = sorted(cluster.node);
  $('no-nodes').hidden = !heardAt || nodes.length > 0;
  const cargo = byNode(sorted(cluster.allocation));
  sync($('nodes'), nodes, (n) => n.name, createNode, (element, node) => updateNode(element, node, cargo.get(node.name) ?? []));
}

function byNode(allocations) {
  const groups = new Map();
  for (const a of allocations) {
    if (!groups.has(a.node)) groups.set(a.node, []);
    groups.get(a.node).push(a);
  }
  return groups;
}

function createNode(node) {
  const element = make('li', 'node');
  const head = make('button', 'node-head');
  head.append(make('span', 'name', node.name), make('span', 'pill'));
  head.onclick = () => openDetails('node', node.name);
  const bars = make('div', 'bars');
  for (const what of ['cpu', 'memory']) bars.append(createBar(what));
  element.append(head, make('p', 'note'), make('ul', 'hold'), bars);
  return element;
}

function createBar(what) {
  const row = make('div', 'bar-row');
  const bar = make('div', 'bar');
  bar.setAttribute('role', 'meter');
  bar.setAttribute('aria-valuemin', '0');
  bar.setAttribute('aria-valuemax', '100');
  bar.append(make('div', 'fill'));
  row.append(make('span', 'bar-name', what), bar, make('span', 'bar-text'));
  return row;
}

function updateNode(element, node, allocations) {
  const [head, note, hold, bars] = element.children;
  element.dataset.tone = toneOfNode(node.state);
  say(head.children[1], node.state);
  head.children[1].dataset.tone = element.dataset.tone;
  say(note, node.message || labelsOf(node));
  const shown = allocations.filter((a) => a.desired === 'run' || !isTerminal(a));
  sync(hold, shown, (a) => a.id, createCrate, updateCrate);
  element.classList.toggle('is-empty', shown.length === 0);
  ['cpu', 'memory'].forEach((what, i) => updateBar(bars.children[i], what, node));
}

function updateBar(row, what, node) {
  const [, bar, text] = row.children;
  const used = amount(node.reserved[what]);
  const whole = amount(node.allocatable[what]);
  const percent = whole ? Math.min(100, Math.round((100 * used) / whole)) : 0;
  bar.firstElementChild.style.inlineSize = `${percent}%`;
  bar.classList.toggle('is-full', percent >= 90);
  bar.setAttribute('aria-valuenow', String(percent));
  bar.setAttribute('aria-label', `${what} reserved on ${node.name}`);
  bar.setAttribute('aria-valuetext', `${node.reserved[what]} of ${node.allocatable[what]}`);
  say(text, `${node.reserved[what]} of ${node.allocatable[what]}`);
}

function createCrate(allocation) {
  const item = make('li');
  const crate = make('button', 'crate');
  crate.append(make('span', 'name'), make('span', 'phase'));
  crate.onclick = () => openDetails('allocation', allocation.id);
  item.append(crate);
  return item;
}

function updateCrate(item, a) {
  const crate = item.firstElementChild;
  crate.dataset.tone = toneOfAllocation(a);
  say(crate.children[0], `${a.name}-${a.index}`);
  say(crate.children[1], phaseWords(a));
  crate.title = a.id;
}

const isTerminal = (a) => ['stopped', 'succeeded', 'failed'].includes(a.phase);
const labelsOf = (node) => Object.entries(node.labels).map(([key, value]) => `${key}=${value}`).join('  ');

function phaseWords(a) {
  if (a.crashLooping) return 'crash loop';
  if (a.phase !== 'running' && (a.desired === 'run' || isTerminal(a) || a.phase === 'unknown')) return a.phase;
  if (a.desired === 'stop') return 'stopping';
  return a.health === 'healthy' ? 'healthy' : a.health === 'unhealthy' ? 'unhealthy' : 'not ready';
}

function toneOfAllocation(a) {
  if (a.phase === 'failed' || a.health === 'unhealthy' || a.crashLooping) return 'bad';
  if (a.phase === 'unknown' || a.phase === 'backoff') return 'warn';
  if (a.desired === 'stop' || isTerminal(a)) return 'quiet';
  return a.phase === 'running' && a.health === 'healthy' ? 'good' : 'busy';
}

function toneOfNode(state) {
  return { ready: 'good', lost: 'bad', suspect: 'warn', troubled: 'warn' }[state] ?? 'quiet';
}

/** Return millicores or bytes, for comparing two amounts of one kind. */
function amount(text) {
  const match = /^(\d+)([A-Za-z]*)$/.exec(String(text));
  if (!match) return 0;
  const units = { '': 1, m: 0.001, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 };
  const binary = { Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50 };
  return Number(match[1]) * (units[match[2]] ?? binary[match[2]] ?? 1);
}

// ---- workloads and events ------------------------------------------------------------------------------------

function drawWorkloads() {
  const workloads = sorted(cluster.workload);
  $('no-workloads').hidden = !heardAt || workloads.length > 0;
  sync($('workloads'), workloads, (w) => idOf('workload', w), createWorkload, updateWorkload);
}

function createWorkload(w) {
  const element = make('li', 'workload');
  const head = make('button', 'workload-head');
  head.onclick = () => openDetails('workload', idOf('workload', w));
  for (const part of ['name', 'kind', 'counts', 'version', 'pill']) head.append(make('span', part));
  element.append(head, createPassage(), make('ul', 'sentences'));
  return element;
}

function createPassage() {
  const passage = make('div', 'passage');
  const bar = make('div', 'bar');
  bar.setAttribute('role', 'progressbar');
  bar.setAttribute('aria-valuemin', '0');
  bar.append(make('div', 'fill'));
  passage.append(make('span', 'pill'), make('span', 'passage-text'), bar);
  return passage;
}

function updateWorkload(element, w) {
  const [name, kind, counts, version, pill] = element.firstElementChild.children;
  say(name, w.namespace === 'default' ? w.name : `${w.namespace}/${w.name}`);
  say(kind, w.kind);
  say(counts, countsOf(w));
  say(version, `v${w.version}`);
  say(pill, w.state);
  pill.dataset.tone = TONES[w.state] ?? 'busy';
  updatePassage(element.children[1], w);
  const sentences = [...w.blocked.map((b) => ['blocked', b.sentence]), ...messagesOf(w).map((m) => ['waits', m])];
  sync(element.lastElementChild, sentences, String, ([tone, text]) => make('li', tone, text), () => {});
}

/** Show a rollout that isn't simply over: where it stands, in words and as a bar. */
function updatePassage(passage, w) {
  const [pill, text, bar] = passage.children;
  const { rollout } = w;
  passage.hidden = !hasPassage(w);
  if (passage.hidden) return;
  passage.dataset.tone = pill.dataset.tone = ROLLOUT_TONES[rollout.state] ?? 'busy';
  say(pill, rollout.state === 'waiting' ? 'waits for promotion' : `rollout ${rollout.state}`);
  say(text, rolloutSentence(w));
  bar.hidden = rollout.state === 'reverted';
  bar.setAttribute('aria-label', `rollout of ${w.name} to version ${rollout.target}`);
  bar.setAttribute('aria-valuemax', String(Math.max(1, w.counts.desired)));
  bar.setAttribute('aria-valuenow', String(Math.min(rollout.ready, w.counts.desired)));
  bar.setAttribute('aria-valuetext', readyOf(w));
  bar.firstElementChild.style.inlineSize = `${w.counts.desired ? Math.min(100, (100 * rollout.ready) / w.counts.desired) : 0}%`;
}

/** A first version that is on its way needs no more than the counts; one that failed does. */
const hasPassage = ({ rollout: r }) => Boolean(r) && r.state !== 'complete' && (r.state !== 'progressing' || r.healthyVersion !== null);
const messagesOf = (w) => (hasPassage(w) ? w.messages.filter((m) => m !== w.rollout.message) : w.messages);
const readyOf = ({ rollout, counts }) => `${rollout.ready} of ${counts.desired} ready at version ${rollout.target}`;

function rolloutSentence(w) {
  const { state, version, target, message, old } = w.rollout;
  const left = old ? `, ${old} of other versions left` : '';
  const where = target === version ? readyOf(w) + left : `Back from version ${version}: ${readyOf(w)}${left}`;
  const next = { waiting: `wherry rollout promote ${nameOf(w)}`, paused: `wherry rollout resume ${nameOf(w)}` }[state];
  return [where, capital(message), next && `Go on with: ${next}`].filter(Boolean).join('. ');
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function nameOf(w) {
  return `${w.kind.toLowerCase()}/${w.name}${w.namespace === 'default' ? '' : ` -n ${w.namespace}`}`;
}

function countsOf(w) {
  if (w.cron) return [w.cron.schedule, nextRun(w.cron), w.cron.active.length && `${w.cron.active.length} running`].filter(Boolean).join(', ');
  const { desired, ready, succeeded, failed } = w.counts;
  const done = w.kind === 'Job' ? `${succeeded} of ${desired} succeeded` : `${ready} of ${desired} ready`;
  return failed ? `${done}, ${failed} failed` : done;
}

/** Say when it is due next, in the time of whoever looks. */
function nextRun(cron) {
  if (cron.suspend) return 'no next run: suspended';
  const next = cron.next.map((slot) => new Date(slot)).find((slot) => slot > Date.now());
  return next ? `next ${moment(next)}` : '';
}

function moment(date) {
  const isToday = date.toDateString() === new Date().toDateString();
  const day = isToday ? {} : { weekday: 'short', day: 'numeric', month: 'short' };
  return date.toLocaleString([], { ...day, hour: '2-digit', minute: '2-digit', hour12: false });
}

function drawEvents() {
  $('no-events').hidden = !heardAt || cluster.events.length > 0;
  const newestFirst = [...cluster.events].reverse();
  sync($('events'), newestFirst, (event) => `${eventKey(event)} ${event.count}`, createEvent, () => {});
}

function createEvent(event) {
  const element = make('li');
  const time = make('time', '', new Date(event.at).toLocaleTimeString([], { hour12: false }));
  time.dateTime = event.at;
  time.title = new Date(event.at).toLocaleString();
  const times = event.count > 1 ? ` (${event.count} times)` : '';
  const said = `${event.message || event.reason}${event.by ? `, by ${event.by}` : ''}${times}`;
  element.append(time, make('span', 'subject', event.subject), make('span', 'message', said));
  return element;
}

// ---- details -------------------------------------------------------------------------------------------------

function openDetails(type, id) {
  shownDetails = { type, id };
  drawDetails();
  $('details').showModal();
}

function drawDetails() {
  if (!shownDetails) return;
  const { type, id } = shownDetails;
  const object = cluster[type].get(id);
  if (!object) {
    say($('details-lead'), 'It is gone: what stands here is what was last known of it.');
    return;
  }
  const [title, lead, groups] = { node: aboutNode, workload: aboutWorkload, allocation: aboutAllocation }[type](object);
  say($('details-title'), title);
  say($('details-lead'), lead);
  const filled = groups.map(([name, rows]) => [name, rows.filter((row) => row[1])]).filter(([, rows]) => rows.length);
  const fill = (group, [, rows]) => fillGroup(group.lastElementChild, rows);
  sync($('details-body'), filled, ([name]) => name, createGroup, fill);
}

function createGroup([name]) {
  const group = make('section');
  group.append(make('h3', '', name), make('dl'));
  return group;
}

function fillGroup(list, rows) {
  sync(list, rows, ([name]) => name, () => {
    const row = make('div');
    row.append(make('dt'), make('dd'));
    return row;
  }, (row, [name, value]) => {
    say(row.firstElementChild, name);
    say(row.lastElementChild, String(value));
  });
}

function aboutAllocation(a) {
  const ports = a.ports.map((p) => `${p.name}: host port ${p.host} → ${p.container}/${p.protocol}`).join('\n');
  const ruledOut = a.why.details?.join('\n') ?? a.why.rejections.map((r) => `${r.node}: ${r.code}`).join('\n');
  const ending = a.lastEnding;
  return [a.id, `${phaseWords(a)} on ${a.node}${a.message ? `: ${a.message}` : ''}`, [
    ['Now', [['Phase', a.phase], ['Health', a.health], ['Desired', a.desired], ['Stopped because', a.stopReason],
      ['Since', when(a.startedAt)], ['Restarts', a.restarts ? String(a.restarts) : 'none'],
      ['Failures in a row', a.failures ? String(a.failures) : ''],
      ['Next attempt', when(a.nextAttemptAt)], ['Address', a.address], ['Ports', ports],
      ['Reserved', `${a.reserved.cpu} cpu, ${a.reserved.memory} memory, ${a.reserved.pids} pids`]]],
    ['Why this node', [['Decision', a.whySentence], ['Ruled out', ruledOut]]],
    ['How it last ended', [['Reason', ending?.reason], ['Message', ending?.message],
      ['Exit code', ending?.exitCode == null ? '' : String(ending.exitCode)], ['At', when(ending?.finishedAt)],
      ['Container', ending?.container], ['Last lines', (ending?.logTail ?? []).join('\n')]]],
    ['Containers', (a.containers ?? []).map((c) => [c.name,
      [c.phase, c.phase === 'running' ? c.health : '', c.attempt > 1 ? `${c.attempt - 1} restarts` : '', c.message]
        .filter(Boolean).join(', ')])],
    ['Where it comes from', [['Workload', `${a.kind.toLowerCase()} ${a.namespace}/${a.name}, version ${a.version}`],
      ['Replaces', a.replaces], ['Created', when(a.createdAt)], ['Container', a.containerId?.slice(0, 12)]]],
  ]];
}

function aboutNode(n) {
  const pair = (o) => Object.entries(o).map(([key, value]) => `${key}: ${value}`).join('\n');
  return [n.name, `${n.state}${n.message ? `: ${n.message}` : ''}`, [
    ['Room', ['cpu', 'memory', 'pids'].map((what) => [what,
      `${n.reserved[what]} reserved of ${n.allocatable[what]} (the machine has ${n.capacity[what]})`])],
    ['Wanted of it', [['Taints', n.taints.join('\n')], ['Drain within', n.drainDeadline], ['Metadata', pair(n.metadata)]]],
    ['Node', [['Address', n.address], ['Allocations', String(n.allocations)], ['Labels', pair(n.labels)],
      ['Attributes', pair(n.attributes)], ['Agent', n.agentVersion], ['Session with', n.server],
      ['Since', when(n.changedAt)]]],
  ]];
}

function aboutWorkload(w) {
  const spec = w.manifest.spec;
  return [`${w.kind.toLowerCase()} ${w.namespace}/${w.name}`, `${w.state}: ${countsOf(w)}`, [
    ['Blocked', w.blocked.map((b, i) => [w.blocked.length > 1 ? `Group ${i + 1}` : 'Reason',
      [b.sentence, ...(b.details ?? [])].join('\n')])],
    ['Waiting for', messagesOf(w).map((m, i) => [String(i + 1), m])],
    ['Rollout', aboutRollout(w)],
    ['Schedule', aboutCron(w.cron)],
    ['Runs', [['Image', spec.image],
      ['Containers', [...(spec.initContainers ?? []), ...(spec.containers ?? [])]
        .map((c) => `${c.name}${c.sidecar ? ' (sidecar)' : ''}: ${c.image}`).join('\n')], ['Command', [...(spec.command ?? []), ...(spec.args ?? [])].join(' ')],
      ['Reserves', !spec.containers?.length && spec.resources && `${spec.resources.cpu} cpu, ${spec.resources.memory} memory each`],
      ['Version', String(w.version)], ['Created', when(w.createdAt)]]],
    ['Allocations', sorted(cluster.allocation).filter((a) => idOf('workload', a) === idOf('workload', w))
      .map((a) => [a.id, `${phaseWords(a)} on ${a.node}`])],
  ]];
}

function aboutRollout({ rollout: r, counts }) {
  if (!r) return [];
  return [['State', r.state], ['Version', r.target === r.version ? String(r.version) : `${r.target}, back from ${r.version}`],
    ['Ready', `${r.ready} of ${counts.desired}, ${r.updated} made`], ['Of other versions', r.old ? String(r.old) : ''],
    ['Last healthy', r.healthyVersion && `version ${r.healthyVersion}`], ['Because', r.message],
    ['Order', r.stopFirst && 'an old one stops before a new one starts: there is no room for both']];
}

function aboutCron(cron) {
  if (!cron) return [];
  return [['Times', `${cron.schedule} (${cron.timeZone})`], ['Suspended', cron.suspend && 'yes: it starts nothing'],
    ['Next', cron.next.map(when).join('\n')], ['Last', when(cron.lastSlot)],
    ['Jobs', cron.jobs.map((job) => `${job.name}: ${job.state}`).join('\n')]];
}

const when = (timestamp) => (timestamp ? new Date(timestamp).toLocaleString() : '');

// ---- start ---------------------------------------------------------------------------------------------------

$('details').onclose = () => {
  shownDetails = null;
};
$('close').onclick = () => $('details').close();
$('details').onclick = (event) => event.target === $('details') && $('details').close();
$('sign-in').oncancel = (event) => event.preventDefault();
takeTokenFromAddress();
setInterval(drawLink, 1000);
(async () => {
  if (!token()) await signIn('');
  await follow();
})();
