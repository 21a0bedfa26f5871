// Its consumer, in its good form too: the keys of a batch, a hundred at most, go in one delete. If that fails, all of them come
// again.

export default {
  async queue(batch, env) {
    await env.BUCKET.delete(batch.messages.map(({ body }) => body));
    batch.ackAll();
  },
};
