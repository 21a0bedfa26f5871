// The consumer as one would write it in JavaScript for speed: what `cargo xtask bench cpu` compares ours with.
//
// It does the same for a batch that meets no trouble: reads and checks every message, claims its chunks in one write, deletes
// each chunk in one call, records all of them in one write, and only then acknowledges. It has none of the rest: no fence, no
// isolating of keys that fail, no sweeps, no notices.

import { KEYS_PER_MESSAGE, VERSION, isKey } from "./limits.js";

const CLAIM = `INSERT INTO chunks (deletion, generation, chunk, keys, claimed_by, claimed_until)
SELECT value ->> 'deletion', value ->> 'generation', value ->> 'chunk', value ->> 'keys', ?2, ?3 FROM json_each(?1)
ON CONFLICT DO UPDATE SET claimed_by = ?2, claimed_until = ?3 WHERE claimed_until <= ?4 AND finished_at IS NULL`;
const READ = `SELECT d.id IS NOT NULL AS known, c.claimed_by, c.finished_at IS NOT NULL AS finished FROM json_each(?1) AS r
LEFT JOIN deletions AS d ON d.id = r.value ->> 'deletion'
LEFT JOIN chunks AS c ON c.deletion = d.id AND c.generation = r.value ->> 'generation' AND c.chunk = r.value ->> 'chunk'
ORDER BY r.key`;
const RECORD = `UPDATE chunks SET claimed_by = NULL, claimed_until = 0, deleted = o.value ->> 'keys', finished_at = ?3
FROM json_each(?1) AS o WHERE chunks.deletion = o.value ->> 'deletion' AND chunks.generation = o.value ->> 'generation'
AND chunks.chunk = o.value ->> 'chunk' AND chunks.claimed_by = ?2 RETURNING deletion, generation, chunk`;
const FINISH = `UPDATE deletions SET finished_at = ?2 WHERE id IN (SELECT value ->> 'deletion' FROM json_each(?1))
AND finished_at IS NULL AND (SELECT SUM(keys) FROM parts WHERE deletion = id)
= (SELECT SUM(deleted) FROM chunks WHERE deletion = id) RETURNING id`;
const CLAIM_MS = 240_000;
const DELETION = /^del_[0-9a-z-]{26,36}$/;

export default {
  async queue(batch, env) {
    const started = Date.now();
    const token = crypto.randomUUID();
    const read = [];
    for (const message of batch.messages) {
      const body = parse(message.body);
      if (body === undefined) message.retry({ delaySeconds: 60 });
      else read.push({ message, body });
    }
    if (read.length === 0) return;

    const ledger = env.LEDGER;
    const refs = JSON.stringify(read.map(({ body: { deletion, generation, chunk, keys } }) => (
      { deletion, generation, chunk, keys: keys.length }
    )));
    const [, { results: replies }] = await ledger.batch([
      ledger.prepare(CLAIM).bind(refs, token, started + CLAIM_MS, started),
      ledger.prepare(READ).bind(refs),
    ]);
    const granted = [];
    for (const [at, { message, body }] of read.entries()) {
      const { known, claimed_by: holder, finished } = replies[at];
      if (known && !finished && holder === token) granted.push({ message, body });
      else if (finished) message.ack();
      else message.retry({ delaySeconds: 10 });
    }

    const deleted = await Promise.allSettled(granted.map(({ body }) => env.BUCKET.delete(body.keys)));
    const done = granted.filter((_, at) => deleted[at].status === "fulfilled");
    const outcomes = JSON.stringify(done.map(({ body: { deletion, generation, chunk, keys } }) => (
      { deletion, generation, chunk, keys: keys.length }
    )));
    const [{ results: recorded }] = await ledger.batch([
      ledger.prepare(RECORD).bind(outcomes, token, Date.now()),
      ledger.prepare(FINISH).bind(outcomes, Date.now()),
    ]);
    const isRecorded = new Set(recorded.map(({ deletion, generation, chunk }) => `${deletion}/${generation}/${chunk}`));
    let keys = 0;
    for (const { message, body } of granted) {
      if (isRecorded.has(`${body.deletion}/${body.generation}/${body.chunk}`)) {
        message.ack();
        keys += body.keys.length;
      } else {
        message.retry({ delaySeconds: 10 });
      }
    }
    console.log({ event: "batch.processed", queue: batch.queue, messages: batch.messages.length, keys_deleted: keys,
      duration_ms: Date.now() - started });
  },
};

/** A chunk, or nothing when the message cannot be carried out. */
function parse(text) {
  if (typeof text !== "string") return undefined;
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    return undefined;
  }
  const { v, deletion, chunk, generation, requested_at: requestedAt, keys } = body ?? {};
  if (v !== VERSION || typeof deletion !== "string" || !DELETION.test(deletion)) return undefined;
  if (![chunk, generation, requestedAt].every(Number.isSafeInteger)) return undefined;
  if (!Array.isArray(keys) || keys.length === 0 || keys.length > KEYS_PER_MESSAGE) return undefined;
  return keys.every(isKey) ? body : undefined;
}
