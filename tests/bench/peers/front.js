// What `cargo xtask bench gone` talks to: the gateway of the local stack, and behind it the peers, each a Worker of its own.
//
//   POST /__peers/NAME/…          handed to the peer whose binding is NAME
//   GET  /__peers/left?prefix=    whether there is an object left: {left}
//
// The producer stands behind the same gateway, so that every request takes as many hops.

import gateway from "../../../xtask/stack/gateway.js";

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    const [, place, name] = url.pathname.split("/");
    if (place !== "__peers") {
      return gateway.fetch(request, env);
    }
    if (name === "left") {
      const page = await env.BUCKET.list({ prefix: url.searchParams.get("prefix"), limit: 1 });
      return Response.json({ left: page.objects.length > 0 });
    }
    return env[name].fetch(request);
  },
};
