// Runs one Worker over and over in its own isolate, between bindings that answer at once: `GET /?role=producer&bytes=60&ascii=1&rounds=10`,
// and `check=1` to see that it did what it was for, `objects=1` where messages are not texts.
// Whoever asks measures the CPU time of the process meanwhile.

import subject from "./index.js";
import { bucket, ledger, queue } from "./stubs.js";

const KEYS = 10_000;
const KEYS_PER_MESSAGE = 1_000;
// As the consumer's configuration has it.
const BATCH_MESSAGES = 6;
const TOKEN = "bench";

/** The same keys for every Worker: a project's, of so many bytes; without `ascii` half of their letters have two bytes. */
function keysOf(bytes, ascii) {
  return Array.from({ length: KEYS }, (_, at) => {
    const head = `proj_42/${String(at).padStart(8, "0")}`;
    const rest = bytes - head.length;
    return head + (ascii ? "x".repeat(rest) : "xéx".repeat(rest / 4) + "x".repeat(rest % 4));
  });
}

/** As many keys to a message as fit. */
function messagesOf(keys) {
  const perMessage = Math.min(KEYS_PER_MESSAGE, Math.floor(127_000 / (new TextEncoder().encode(keys[0]).length + 3)));
  const messages = [];
  for (let start = 0; start < keys.length; start += perMessage) {
    messages.push(JSON.stringify({
      v: 1, deletion: "del_01kaszq5m00000000000000000", chunk: messages.length, generation: 0, requested_at: Date.now(),
      fence: "auto", keys: keys.slice(start, start + perMessage),
    }));
  }
  return messages;
}

const cases = new Map();

function caseOf(query) {
  const name = `${query.get("bytes")} ${query.get("ascii")}`;
  if (!cases.has(name)) {
    const keys = keysOf(Number(query.get("bytes")), query.get("ascii") === "1");
    cases.set(name, { body: new TextEncoder().encode(JSON.stringify({ objectKeys: keys })), messages: messagesOf(keys) });
  }
  return cases.get(name);
}

/** The Worker's handlers, whichever way it exports them. */
function handlersOf(context) {
  const env = { LEDGER: ledger, DELETIONS: queue, BUCKET: bucket, API_TOKEN: TOKEN };
  if (typeof subject !== "function") {
    return { fetch: (request) => subject.fetch(request, env, context), queue: (batch) => subject.queue(batch, env, context) };
  }
  const worker = new subject(context, env);
  return { fetch: (request) => worker.fetch(request), queue: (batch) => worker.queue(batch) };
}

async function produce({ fetch }, { body }, { checked }) {
  queue.sent = [];
  const headers = { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json", "Content-Length": body.length };
  const response = await fetch(new Request("https://bench/v1/deletions", { method: "POST", headers, body }));
  const text = await response.text();
  if (response.status !== 202) throw new Error(`status ${response.status}: ${text}`);
  // Looked at once, because looking costs as much as what is measured.
  if (!checked) return;
  const read = (message) => (typeof message === "string" ? JSON.parse(message) : message);
  const sent = queue.sent.reduce((keys, message) => keys + read(message).keys.length, 0);
  if (sent !== KEYS) throw new Error(`${sent} keys were sent`);
}

async function consume({ queue: deliver }, { messages }, { checked, objects }) {
  bucket.deleted = 0;
  let acknowledged = 0;
  const ack = () => { acknowledged += 1; };
  for (let start = 0; start < messages.length; start += BATCH_MESSAGES) {
    const batch = messages.slice(start, start + BATCH_MESSAGES).map((body, at) => (
      // The runtime itself parses what is not sent as text.
      { id: `message-${start + at}`, timestamp: new Date(), attempts: 1, body: objects ? JSON.parse(body) : body, ack, retry() {} }
    ));
    await deliver({ queue: "r2-deletions", messages: batch, ackAll() {}, retryAll() {} });
  }
  if (checked && (bucket.deleted !== KEYS || acknowledged !== messages.length)) {
    throw new Error(`${bucket.deleted} keys were deleted, ${acknowledged} of ${messages.length} messages acknowledged`);
  }
}

const RUNS = { producer: produce, consumer: consume };

export default {
  async fetch(request, _env, context) {
    const query = new URL(request.url).searchParams;
    const [subjectCase, handlers] = [caseOf(query), handlersOf(context)];
    const run = RUNS[query.get("role")];
    for (let round = 0; round < Number(query.get("rounds")); round++) {
      await run(handlers, subjectCase, { checked: round === 0 && query.has("check"), objects: query.has("objects") });
    }
    return new Response("ok");
  },
};
