// What a Worker asks of the platform, counted: `cargo xtask bench cost` puts this beside a Worker's shipped build and starts it in
// its place. The build is imported as it is, and given bindings that count; what it does not use yet is refused rather than
// not counted.
//
// After each invocation a line is logged: "counted " and JSON of
//   worker       "producer" or "consumer"
//   counts       how often what was done that is paid for
//   statements   what of the ledger's rows each kind of statement has read and written, by the database's own `meta`

import Shipped from "./index.js";

/** An operation of a Queue is 64 KB of one message, or a part of it, written, read or deleted. */
const QUEUE_OPERATION_BYTES = 64_000;

/** What the Queue may count beside a message's body. */
const MESSAGE_METADATA_BYTES = 100;

const MARK = "counted ";

/** Events that were logged and are in no line yet: which invocation has logged one cannot be told, and all are added up. */
let logged = 0;
const print = console.log;
for (const method of ["log", "warn", "error"]) {
  const original = console[method];
  console[method] = (...words) => {
    logged += 1;
    original.apply(console, words);
  };
}

class Counts {
  counts = {};
  statements = {};

  add(name, number = 1) {
    this.counts[name] = (this.counts[name] ?? 0) + number;
  }

  addStatement(kind, { rows_read: read, rows_written: written }) {
    const statement = (this.statements[kind] ??= { times: 0, rows_read: 0, rows_written: 0 });
    statement.times += 1;
    statement.rows_read += read;
    statement.rows_written += written;
    this.add("d1_rows_read", read);
    this.add("d1_rows_written", written);
  }

  addMessage(what, body) {
    const bytes = new TextEncoder().encode(typeof body === "string" ? body : JSON.stringify(body)).length;
    const operations = Math.ceil((bytes + MESSAGE_METADATA_BYTES) / QUEUE_OPERATION_BYTES);
    this.add(`queue_messages_${what}`);
    this.add(`queue_operations_${what}`, operations);
  }
}

/** `binding` with these methods in place of its own, and no other. */
function counting(binding, methods) {
  return new Proxy(binding, {
    get(target, name) {
      if (typeof target[name] !== "function" || name === "constructor") {
        return target[name];
      }
      const method = methods[name];
      if (method === undefined) {
        throw new Error(`tests/bench/counted.js does not count ${String(name)}`);
      }
      return method;
    },
  });
}

function countQueue(queue, counts) {
  return counting(queue, {
    sendBatch(messages) {
      counts.add("queue_sends");
      for (const { body } of messages) {
        counts.addMessage("written", body);
      }
      return queue.sendBatch(messages);
    },
  });
}

function countBucket(bucket, counts) {
  return counting(bucket, {
    delete(keys) {
      counts.add("r2_deletes");
      counts.add("r2_keys_deleted", keys.length);
      return bucket.delete(keys);
    },
    head(key) {
      counts.add("r2_heads");
      return bucket.head(key);
    },
    list(options) {
      counts.add("r2_lists");
      return bucket.list(options);
    },
  });
}

function countDatabase(database, counts) {
  const kinds = new WeakMap();
  return counting(database, {
    prepare(sql) {
      const statement = database.prepare(sql);
      return {
        bind(...values) {
          const bound = statement.bind(...values);
          kinds.set(bound, kindOf(sql));
          return bound;
        },
      };
    },
    async batch(statements) {
      const results = await database.batch(statements);
      counts.add("d1_batches");
      results.forEach(({ meta }, index) => counts.addStatement(kinds.get(statements[index]), meta));
      return results;
    },
  });
}

/** "INSERT INTO chunks", "SELECT FROM deletions". */
function kindOf(sql) {
  const write = /\b(INSERT(?: OR \w+)? INTO|UPDATE|DELETE FROM)\s+(\w+)/.exec(sql);
  const [, verb, table] = write ?? ["", "SELECT FROM", /\bFROM\s+(\w+)/.exec(sql)?.[1]];
  return `${verb} ${table}`;
}

const BINDINGS = { WorkerQueue: countQueue, R2Bucket: countBucket, D1Database: countDatabase };

function countEnv(env, counts) {
  const counted = Object.entries(env).map(([name, binding]) => {
    const count = BINDINGS[binding?.constructor?.name];
    return [name, count === undefined ? binding : count(binding, counts)];
  });
  return Object.fromEntries(counted);
}

function countMessage(message, counts) {
  const { id, timestamp, body, attempts } = message;
  counts.addMessage("read", body);
  return {
    id,
    timestamp,
    body,
    attempts,
    ack() {
      counts.addMessage("deleted", body);
      message.ack();
    },
    retry(options) {
      counts.add("queue_retries");
      message.retry(options);
    },
  };
}

/** Runs one invocation of the shipped Worker with bindings that count, and logs what it came to. */
async function invoke(env, ctx, call) {
  const counts = new Counts();
  counts.add("worker_invocations");
  const shipped = new Shipped(ctx, countEnv(env, counts));
  try {
    return await call(shipped, counts);
  } finally {
    // The platform logs each invocation besides.
    counts.add("log_events", logged + 1);
    logged = 0;
    print.call(console, MARK + JSON.stringify({ worker: env.COUNTED, ...counts }));
  }
}

export default {
  async fetch(request, env, ctx) {
    // Upkeep is set off by a cron trigger, which a local runtime leaves to be called.
    if (new URL(request.url).pathname === "/__bench/upkeep") {
      if (env.CONSUMER !== undefined) {
        return env.CONSUMER.fetch(request);
      }
      await invoke(env, ctx, (shipped) => shipped.scheduled({ cron: "", scheduledTime: Date.now() }));
      return new Response();
    }
    return invoke(env, ctx, (shipped) => shipped.fetch(request));
  },

  async queue(batch, env, ctx) {
    await invoke(env, ctx, (shipped, counts) => {
      const messages = batch.messages.map((message) => countMessage(message, counts));
      return shipped.queue({ queue: batch.queue, messages });
    });
  },
};
