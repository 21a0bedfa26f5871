// The producer as one would write it in JavaScript for speed: what `cargo xtask bench cpu` compares ours with.
//
// It does the same for a plain request: checks the token in constant time, checks every key, leaves duplicates out, packs
// as many keys into a message as fit, keeps the messages in the ledger, writes the deletion down before it sends, and sends
// within the limits of a send. It has none of the rest: no options, prefixes, roles, parts or Idempotency-Keys.

import {
  BODY_BYTES, KEYS_PER_MESSAGE, KEYS_PER_REQUEST, MESSAGE_BYTES, SEND_BYTES, SEND_MESSAGES, VERSION, isKey, utf8Bytes,
} from "./limits.js";

const OUTBOX =
  "INSERT INTO outbox (deletion, generation, part, upload, piece, first_chunk, messages) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const DELETION = "INSERT INTO deletions (id, requested_by, requested_at, not_before, sealed_at) VALUES (?1, ?2, ?3, ?3, ?3)";
const PART = "INSERT INTO parts (deletion, generation, part, upload, keys, chunk_keys) VALUES (?1, 0, 0, ?2, ?3, ?4)";
const SENT = "UPDATE parts SET enqueued_at = ?2 WHERE deletion = ?1 AND generation = 0 AND part = 0";
const OUTBOX_ROW_BYTES = 1_000_000;

const encoder = new TextEncoder();

export default {
  async fetch(request, env) {
    if (new URL(request.url).pathname !== "/v1/deletions" || request.method !== "POST") return problem(404, "not_found");
    if (!(await isAuthorized(request, env))) return problem(401, "unauthorized");
    if (Number(request.headers.get("Content-Length") ?? 0) > BODY_BYTES) return problem(413, "payload_too_large");

    const text = await request.text();
    // Never less than its bytes would be: what is longer in UTF-16 is longer in UTF-8.
    if (text.length > BODY_BYTES) return problem(413, "payload_too_large");
    let body;
    try {
      body = JSON.parse(text);
    } catch {
      return problem(400, "invalid_json");
    }
    const asked = body?.objectKeys;
    if (!Array.isArray(asked) || asked.length === 0) return problem(422, "validation_failed");
    for (const name in body) {
      if (name !== "objectKeys") return problem(422, "validation_failed");
    }
    if (asked.length > KEYS_PER_REQUEST) return problem(413, "payload_too_large");
    for (let at = 0; at < asked.length; at++) {
      if (!isKey(asked[at])) return problem(422, "validation_failed", `#/objectKeys/${at}`);
    }
    const keys = Array.from(new Set(asked));

    const id = `del_${crypto.randomUUID()}`;
    const requestId = crypto.randomUUID();
    const requestedAt = Date.now();
    const { messages, chunkKeys } = pack(id, requestedAt, keys);
    for (const [piece, row] of rows(messages).entries()) {
      const statement = env.LEDGER.prepare(OUTBOX);
      await env.LEDGER.batch([statement.bind(id, 0, 0, requestId, piece, row.first, JSON.stringify(row.messages))]);
    }
    await env.LEDGER.batch([
      env.LEDGER.prepare(DELETION).bind(id, "api_token", requestedAt),
      env.LEDGER.prepare(PART).bind(id, requestId, keys.length, JSON.stringify(chunkKeys)),
    ]);
    await Promise.all(sends(messages).map((send) => env.DELETIONS.sendBatch(send)));
    await env.LEDGER.batch([env.LEDGER.prepare(SENT).bind(id, Date.now())]);

    console.log({ event: "deletion.accepted", deletion: id, keys: keys.length, messages: messages.length });
    const counts = { total: keys.length, pending: keys.length, deleted: 0, skipped: 0, failed: 0, cancelled: 0 };
    const view = { id, state: "queued", counts, duplicates_removed: asked.length - keys.length, messages: messages.length };
    return Response.json(view, { status: 202, headers: { Location: `/v1/deletions/${id}`, "Retry-After": "1" } });
  },
};

async function isAuthorized(request, env) {
  const header = request.headers.get("Authorization") ?? "";
  const [given, right] = await Promise.all([digest(header), digest(`Bearer ${env.API_TOKEN}`)]);
  return crypto.subtle.timingSafeEqual(given, right);
}

function digest(text) {
  return crypto.subtle.digest("SHA-256", encoder.encode(text));
}

/** Messages of up to 1,000 keys and 128,000 bytes, and how many keys each has. */
function pack(id, requestedAt, keys) {
  const messages = [];
  const chunkKeys = [];
  const packRange = (start, end) => {
    const chunk = messages.length;
    const body = JSON.stringify({
      v: VERSION, deletion: id, chunk, generation: 0, requested_at: requestedAt, fence: "auto", keys: keys.slice(start, end),
    });
    const bytes = body.length * 3 <= MESSAGE_BYTES ? 0 : utf8Bytes(body);
    if (bytes <= MESSAGE_BYTES) {
      messages.push(body);
      chunkKeys.push(end - start);
      return end;
    }
    // As many as fit if the keys are alike, and a few less.
    const fitting = Math.floor(((end - start) * MESSAGE_BYTES * 0.98) / bytes);
    return packRange(start, start + Math.max(1, Math.min(fitting, end - start - 1)));
  };
  for (let start = 0; start < keys.length; ) {
    start = packRange(start, Math.min(start + KEYS_PER_MESSAGE, keys.length));
  }
  return { messages, chunkKeys };
}

/** Messages by rows of the ledger, which have 2 MB at the most. */
function rows(messages) {
  const found = [];
  let length = Infinity;
  for (const [first, message] of messages.entries()) {
    if (length + message.length > OUTBOX_ROW_BYTES) {
      found.push({ first, messages: [] });
      length = 0;
    }
    length += message.length;
    found[found.length - 1].messages.push(message);
  }
  return found;
}

/** Messages by sends, which have 100 messages and 256,000 bytes at the most. */
function sends(messages) {
  const found = [];
  let bytes = Infinity;
  for (const body of messages) {
    const added = (body.length * 3 * SEND_MESSAGES <= SEND_BYTES ? body.length * 3 : utf8Bytes(body)) + 100;
    if (bytes + added > SEND_BYTES || found[found.length - 1].length === SEND_MESSAGES) {
      found.push([]);
      bytes = 0;
    }
    bytes += added;
    found[found.length - 1].push({ body, contentType: "text" });
  }
  return found;
}

function problem(status, code, pointer) {
  return Response.json({ status, code, pointer }, { status, headers: { "Content-Type": "application/problem+json" } });
}
