// Loaded into wrangler by the stack. Its standard input is a pipe that the stack's owner holds: when the owner is gone,
// however it ended, the pipe ends, and so does the whole process group, the runtime included.
import { isMainThread } from "node:worker_threads";

// Node loads this into every thread too, and a thread's own standard input ends at once.
if (isMainThread) {
  process.stdin.on("end", () => process.kill(0, "SIGKILL"));
  process.stdin.resume();
}
