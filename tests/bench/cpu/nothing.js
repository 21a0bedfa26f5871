// A Worker that does nothing: what it takes is the driver's, and is taken off from every other.

export default {
  async fetch() {
    return new Response("", { status: 202 });
  },
  async queue() {},
};
