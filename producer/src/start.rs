//! What worker-build's script (its `shim.js`) wants of the wasm, so that a new instance takes the place of one that failed.
//!
//! The crate `worker` of the same version has it too, but also classes for streams, R2 and containers, which stay in the
//! wasm whether anybody uses them or not: they were a twentieth of it.

use std::panic;

use js_sys::{Error, Reflect};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsValue, handler};
use web_sys::console;

#[wasm_bindgen(inline_js = "export const state = { criticalError: false, instanceId: 0 };")]
extern "C" {
    /// Shared by the script and all instances, one after the other. The script knows both fields by their names.
    #[wasm_bindgen(thread_local_v2, js_name = state)]
    static STATE: JsValue;
}

#[wasm_bindgen(js_name = "__worker_init_state")]
#[expect(unreachable_pub, reason = "wasm-bindgen exports only what is public")]
pub fn state() -> JsValue {
    STATE.with(JsValue::clone)
}

/// Runs once in each instance, before everything else.
#[wasm_bindgen(start)]
fn start() {
    panic::set_hook(Box::new(|panic| {
        console::error_2(&"Critical".into(), &Error::new(&panic.to_string()).into());
        set("criticalError", &JsValue::TRUE);
    }));
    handler::set_on_abort(handler::schedule_reinit);
    let instance = Reflect::get(&state(), &"instanceId".into()).ok().and_then(|id| id.as_f64());
    set("instanceId", &(instance.unwrap_or_default() + 1.0).into());
}

fn set(field: &str, value: &JsValue) {
    // Fails only for what is no object.
    let _ = Reflect::set(&state(), &field.into(), value);
}
