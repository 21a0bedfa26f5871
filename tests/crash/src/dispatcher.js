// Hands a batch to the consumer as a Queue would, and answers what became of each message; or sets off its cron trigger.
// Needs the compatibility flag `service_binding_extra_handlers`, which gives service bindings both handlers.
// As the tail of both Workers it prints what they log and the exceptions that they end in, as `wrangler tail` gets them. What the
// platform adds by itself, a request's address and headers, is not the Workers' own.
export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === "/cron") return Response.json(await env.CONSUMER.scheduled());
    if (pathname === "/say") {
      console.log(await request.text());
      return new Response();
    }
    const { queue, messages } = await request.json();
    const batch = messages.map(({ id, timestamp, attempts, contentType, body }) => {
      const bytes = Uint8Array.fromBase64(body);
      const text = () => new TextDecoder().decode(bytes);
      const message = { id, attempts, timestamp: new Date(timestamp) };
      if (contentType === "v8") return { ...message, serializedBody: bytes };
      if (contentType === "bytes") return { ...message, body: bytes };
      return { ...message, body: contentType === "json" ? JSON.parse(text()) : text() };
    });
    return Response.json(await env.CONSUMER.queue(queue, batch));
  },
  tail(invocations) {
    for (const { scriptName, outcome, logs, exceptions } of invocations) {
      console.log("tail:", JSON.stringify({ scriptName, outcome, logs, exceptions }));
    }
  },
};
