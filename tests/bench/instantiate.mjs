// How long V8 takes to make an instance of a Worker's wasm, and to compile it: {instantiate: [ms], compile: [ms]}.
//
//   node instantiate.mjs FILE ROUNDS
//
// The runtime compiles a module once and makes an instance for each isolate. What the module imports is not called by that, so that
// anything of its kind stands in for it. This is the V8 of Node, not that of the runtime.

import { readFileSync } from "node:fs";

const [file, rounds] = process.argv.slice(2);
const bytes = readFileSync(file);

const timed = async (work) => {
  const start = performance.now();
  await work();
  return performance.now() - start;
};

const module = await WebAssembly.compile(bytes);
const standIns = { function: () => {}, tag: WebAssembly.JSTag ?? new WebAssembly.Tag({ parameters: ["externref"] }) };
const imports = {};
for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
  (imports[from] ??= {})[name] = standIns[kind];
}

const found = { instantiate: [], compile: [] };
for (let round = 0; round < Number(rounds); round++) {
  found.compile.push(await timed(() => WebAssembly.compile(bytes)));
  found.instantiate.push(await timed(() => WebAssembly.instantiate(module, imports)));
}
console.log(JSON.stringify(found));
