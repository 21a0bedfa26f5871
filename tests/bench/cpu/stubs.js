// Bindings that answer at once, so that what is measured is the Worker: of the classes that the Workers look for.

/** The statements' answers, by what their SQL begins with: what the ledger says when nothing is wrong. */
function answer(sql, parameters, { claimed, outbox }) {
  if (sql.startsWith("INSERT INTO outbox")) {
    outbox.set(parameters[4], { first_chunk: parameters[5], messages: parameters[6] });
    return [];
  }
  if (sql.startsWith("SELECT first_chunk, messages FROM outbox")) return [outbox.get(parameters[3])].filter(Boolean);
  if (sql.startsWith("SELECT id FROM deletions")) return [{ id: parameters[0] }];
  if (sql.startsWith("INSERT INTO chunks")) {
    claimed.by = parameters[1];
    return [];
  }
  if (sql.startsWith("SELECT d.id IS NOT NULL AS known")) {
    const row = {
      known: 1, cancelled: 0, in_deletion: 1, claimed_by: claimed.by, claimed_until: 0, deleted: 0, skipped: 0, failed: 0,
      undecided: null, last_r2_code: null, finished: 0, verify: 0, digest: null,
    };
    return JSON.parse(parameters[0]).map(() => row);
  }
  if (sql.startsWith("UPDATE chunks")) {
    return JSON.parse(parameters[0]).map(({ deletion, generation, chunk }) => ({ deletion, generation, chunk }));
  }
  return [];
}

class D1Database {
  kept = { claimed: { by: null }, outbox: new Map() };

  prepare(sql) {
    return { bind: (...parameters) => ({ sql, parameters }) };
  }

  async batch(statements) {
    return statements.map(({ sql, parameters }) => ({ results: answer(sql, parameters, this.kept) }));
  }
}

class WorkerQueue {
  sent = [];

  async sendBatch(messages) {
    for (const { body } of messages) this.sent.push(body);
  }
}

class R2Bucket {
  deleted = 0;

  async delete(keys) {
    if (keys.length > 1_000) throw new Error("delete: too many keys (10027)");
    this.deleted += keys.length;
  }
}

export const ledger = new D1Database();
export const queue = new WorkerQueue();
export const bucket = new R2Bucket();
