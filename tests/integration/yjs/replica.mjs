// A replica of one twin on real Yjs: the same cells, the same messages (docs/wire.md).
//
// Reads lines of JSON: {"hear": envelope, base64}, {"set": [path, value], "at_ms": n}, {"greet": true},
// {"show": true}. Answers each with a line: {"say": [envelopes, base64], "fields", "digest", ...}.
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { encode, decode, rfc8949EncodeOptions } from "cborg";
import * as Y from "yjs";

const HELLO = 0, DELTA = 1, ACK = 2, SNAPSHOT = 3;
const REGISTER = 0;
const [device, life] = process.argv.slice(2);
const doc = new Y.Doc();
const cells = doc.getMap("cells");
const ledger = doc.getMap("ledger");
const outbox = [];
let peer = "", applied = 0, hearing = false, counter = 0;

const pack = (value) => encode(value, rfc8949EncodeOptions);
const sha256 = (data) => createHash("sha256").update(data);
doc.on("update", (update) => { if (!hearing) outbox.push(update); });

function cellsByPath() {
  const found = new Map();
  for (const [name, data] of cells) {
    const at = name.lastIndexOf("@");
    const [kind, content, number, seen, [ms, n]] = decode(data);
    const cell = { name, actor: name.slice(at + 1), kind, content, number, seen, ms, n, data };
    const path = name.slice(0, at);
    found.set(path, [...(found.get(path) ?? []), cell]);
  }
  return found;
}

const dominates = (a, b) => a !== b && (a.seen[b.actor] ?? 0) >= b.number;

function undominated() {
  const found = new Map();
  for (const [path, all] of cellsByPath()) {
    found.set(path, all.filter((b) => !all.some((a) => dominates(a, b))));
  }
  return found;
}

function digest() {
  const kept = [...undominated().values()].flat().map((cell) => [cell.name, cell.data]);
  const parts = [kept, [...ledger]].map((pairs) =>
    sha256(pack(pairs.sort(([a], [b]) => (a < b ? -1 : 1)))).digest("hex"));
  return sha256(parts.join("")).digest();
}

// Policy "latest": the later clock, then the greater actor.
function fields() {
  const found = {};
  for (const [path, present] of undominated()) {
    const order = (a, b) => a.ms - b.ms || a.n - b.n || (a.actor < b.actor ? -1 : 1);
    const winner = present.sort(order).at(-1);
    if (winner.content.length) found[path] = winner.content[0];
  }
  return found;
}

function set(path, value, ms) {
  const seen = {};
  for (const cell of cellsByPath().get(path) ?? []) {
    for (const [actor, n] of [...Object.entries(cell.seen), [cell.actor, cell.number]]) {
      if (actor !== life) seen[actor] = Math.max(n, seen[actor] ?? 0);
    }
  }
  counter += 1;
  const data = pack([REGISTER, [value], counter, seen, [ms, 0]]);
  doc.transact(() => {
    for (const cell of cellsByPath().get(path) ?? []) cells.delete(cell.name);
    cells.set(`${path}@${life}`, data);
  });
}

function message(kind, { want = false, first = 0, last = 0, updates = [], vector = new Uint8Array() } = {}) {
  const seq = outbox.length;
  return pack([1, kind, life, seq, digest(), peer, applied, want, first, last, updates, vector, [], []]);
}

const hello = (want) => message(HELLO, { want, vector: Y.encodeStateVector(doc) });

function receive(data) {
  const [, kind, sender, , , , , want, first, last, updates, vector, theirs, entries] = decode(data);
  if (sender !== peer && (kind === DELTA || kind === ACK)) return [hello(true)];
  if (sender !== peer) [peer, applied] = [sender, 0];
  if (kind === HELLO) {
    const update = Y.encodeStateAsUpdate(doc, vector);
    const snapshot = message(SNAPSHOT, { last: outbox.length, updates: [update], vector });
    return want ? [hello(false), snapshot] : [snapshot];
  }
  if (kind === ACK) return want ? [hello(true)] : [];
  if (kind === DELTA && first > applied) return [message(ACK, { want: true })];
  hearing = true;
  for (const update of updates) Y.applyUpdate(doc, update);
  hearing = false;
  for (const [name, value] of theirs) if (!cells.has(name)) cells.set(name, value);
  for (const [key, value] of entries) if (!ledger.has(key)) ledger.set(key, value);
  applied = Math.max(applied, last);
  return [message(ACK)];
}

function answer({ hear, set: asked, at_ms: ms, greet }) {
  const before = outbox.length;
  let said = [];
  if (hear) {
    for (const [, data] of decode(Buffer.from(hear, "base64"))[1]) said.push(...receive(data));
  }
  if (asked) {
    set(asked[0], asked[1], ms);
    if (peer) {
      said = [message(DELTA, { first: before, last: outbox.length, updates: outbox.slice(before) })];
    }
  }
  if (greet) said = [hello(true)];
  const say = said.map((m) => Buffer.from(pack([1, [[device, m]]])).toString("base64"));
  return { say, fields: fields(), digest: digest().toString("hex"), conflicts: ledger.size };
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(answer(JSON.parse(line)))}\n`);
}
