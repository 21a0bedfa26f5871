// What many have today, and what this project replaces: one delete for each key, all at once, while the caller waits.
// In production an invocation may make 10,000 calls (50 on the free plan), so that it can take no more keys than that; the local
// runtime does not count them.

export default {
  async fetch(request, env) {
    const { keys } = await request.json();
    await Promise.all(keys.map((key) => env.BUCKET.delete(key)));
    return Response.json({ deleted: keys.length });
  },
};
