// Hands a batch to the consumer as a Queue would, and answers what became of each message; or sets off its cron trigger.
// Needs the compatibility flag `service_binding_extra_handlers`, which gives service bindings both handlers.
export default {
  async fetch(request, env) {
    if (new URL(request.url).pathname === "/cron") return Response.json(await env.CONSUMER.scheduled());
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
};
