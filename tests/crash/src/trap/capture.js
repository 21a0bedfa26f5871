// Keeps hold of the wasm instance that the shipped script makes next, and of each that it makes in its place.
let latest;

WebAssembly.Instance = class extends WebAssembly.Instance {
  constructor(...wasm) {
    super(...wasm);
    latest = this;
  }
};

// Has the shipped wasm run into the `unreachable` at which Rust ends: its own allocator is asked for more than there can be,
// and aborts. Every frame of wasm below is unwound, and none of its destructors runs.
export function abort() {
  const { __wbindgen_malloc, __wbindgen_export2 } = latest.exports;
  (__wbindgen_malloc ?? __wbindgen_export2)(0xffffffff, 1);
  throw new Error("the allocator did not abort");
}
