// The main module of a Worker that runs into traps: the shipped one, and beneath it the methods that it calls of the platform.
// The binding TRAPS says at which calls: [{method, after, spare, how}], each once in the life of the process.
import { abort } from "./capture.js";
import Shipped from "./index.js";

let plans;

function watch(prototype, name) {
  const real = prototype[name];
  if (typeof real !== "function" || real.watched) return;
  prototype[name] = function (...given) {
    strike(name);
    return real.apply(this, given);
  };
  prototype[name].watched = true;
}

function strike(method) {
  for (const plan of plans) {
    if (plan.after === method) plan.after = undefined;
    else if (plan.struck || plan.after || plan.method !== method) continue;
    else if (plan.spare > 0) plan.spare -= 1;
    else {
      plan.struck = true;
      console.log(`trap: ${method}`);
      if (method === "setTimeout") throw new Error("no timer");
      abort();
    }
  }
}

function arm(env, messages) {
  if (plans === undefined) {
    plans = env.TRAPS;
    watch(globalThis, "setTimeout");
    watch(globalThis.Math, "random");
    for (const binding of [env.BUCKET, env.LEDGER, env.DELETIONS]) {
      const prototype = binding && Object.getPrototypeOf(binding);
      for (const name of ["delete", "head", "list", "batch", "sendBatch"]) prototype && watch(prototype, name);
    }
  }
  for (const name of ["ack", "retry"]) messages?.length && watch(Object.getPrototypeOf(messages[0]), name);
}

export default class extends Shipped {
  fetch(request) {
    arm(this.env);
    return super.fetch(request);
  }
  queue(batch) {
    arm(this.env, batch.messages);
    return super.queue(batch);
  }
  scheduled(event) {
    arm(this.env);
    return super.scheduled(event);
  }
}
