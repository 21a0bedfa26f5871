// The design with a queue that comes to mind first: a message for each key. This is its good form: messages are sent by the
// hundred, as many as one call takes, six calls at once, and the answer comes when all are stored.

const MESSAGES_PER_SEND = 100;

/** An invocation has six connections. */
const SENDS_AT_ONCE = 6;

export default {
  async fetch(request, env) {
    const { keys } = await request.json();
    let next = 0;
    const send = async () => {
      while (next < keys.length) {
        const start = next;
        next += MESSAGES_PER_SEND;
        await env.KEYS.sendBatch(keys.slice(start, next).map((body) => ({ body, contentType: "text" })));
      }
    };
    await Promise.all(Array.from({ length: SENDS_AT_ONCE }, send));
    return Response.json({ sent: keys.length }, { status: 202 });
  },
};
