// The floor: nothing but the deletes that R2 needs for these keys. No queue, no ledger, no second try; the caller waits, and who
// loses the connection does not know what is gone.

/** R2 takes at most 1,000 keys in one delete. */
const DELETE_KEYS_MAX = 1000;

/** An invocation has six connections; more calls than that would wait inside the runtime. */
const CALLS_AT_ONCE = 6;

export default {
  async fetch(request, env) {
    const { keys } = await request.json();
    let next = 0;
    const work = async () => {
      while (next < keys.length) {
        const start = next;
        next += DELETE_KEYS_MAX;
        await env.BUCKET.delete(keys.slice(start, next));
      }
    };
    await Promise.all(Array.from({ length: CALLS_AT_ONCE }, work));
    return Response.json({ deleted: keys.length });
  },
};
