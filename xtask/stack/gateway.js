// The gateway: a Worker for development and tests only, never deployed.
//
// wrangler answers one port with one Worker. This one stands there: it hands every request on to the producer, except
// those under /__dev/, with which a test or the demo looks at and changes what a backend would: the bucket's objects,
// a raw message on a queue, a row of the ledger. So neither Worker needs a route that only tests use.
//
//   POST   /__dev/objects    {keys, size}          puts an object of `size` bytes under every key
//   GET    /__dev/objects    ?prefix=              lists: {objects: [{key, size, uploaded}]}, all pages
//   DELETE /__dev/objects    ?prefix=              deletes what that lists: {deleted}
//   POST   /__dev/messages   {queue, body, contentType, delaySeconds}   queue: "deletions" or "deadLetters"
//   POST   /__dev/sql        {sql, params}         runs one statement on the ledger: {rows}

/** R2 takes at most 1,000 keys in one delete. */
const DELETE_KEYS_MAX = 1000;

/** The local bucket takes twice as long for each object when a thousand wait at once. */
const PUTS_AT_ONCE = 8;

const routes = {
  "POST /__dev/objects": async (env, request) => {
    const { keys, size } = await request.json();
    const body = new Uint8Array(size);
    const next = keys.values();
    const put = async () => {
      for (const key of next) {
        await env.BUCKET.put(key, body);
      }
    };
    await Promise.all(Array.from({ length: PUTS_AT_ONCE }, put));
    return { put: keys.length };
  },
  "GET /__dev/objects": async (env, _request, url) => ({ objects: await list(env, url) }),
  "DELETE /__dev/objects": async (env, _request, url) => {
    const keys = (await list(env, url)).map(({ key }) => key);
    for (let start = 0; start < keys.length; start += DELETE_KEYS_MAX) {
      await env.BUCKET.delete(keys.slice(start, start + DELETE_KEYS_MAX));
    }
    return { deleted: keys.length };
  },
  "POST /__dev/messages": async (env, request) => {
    const { queue, body, contentType, delaySeconds } = await request.json();
    const binding = { deletions: env.DELETIONS, deadLetters: env.DEAD_LETTERS }[queue];
    await binding.send(body, { contentType, delaySeconds });
    return {};
  },
  "POST /__dev/sql": async (env, request) => {
    const { sql, params } = await request.json();
    const { results } = await env.LEDGER.prepare(sql).bind(...params).all();
    return { rows: results };
  },
};

async function list(env, url) {
  const objects = [];
  let cursor;
  do {
    const page = await env.BUCKET.list({ prefix: url.searchParams.get("prefix") ?? "", cursor });
    objects.push(...page.objects.map(({ key, size, uploaded }) => ({ key, size, uploaded })));
    cursor = page.truncated ? page.cursor : undefined;
  } while (cursor !== undefined);
  return objects;
}

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    if (!url.pathname.startsWith("/__dev/")) {
      return env.PRODUCER.fetch(request);
    }
    const route = routes[`${request.method} ${url.pathname}`];
    if (route === undefined) {
      return Response.json({ error: "no such route" }, { status: 404 });
    }
    try {
      return Response.json(await route(env, request, url));
    } catch (error) {
      return Response.json({ error: String(error) }, { status: 500 });
    }
  },
};
