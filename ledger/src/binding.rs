//! A binding of a Worker, called as the JavaScript object that it is.
//!
//! The wrappers of the worker crate tell every kind of error apart, and read and write values through serde, which is a
//! sixth of each Worker's wasm. Here because both Workers call D1, and each another binding besides.

use js_sys::{Array, Function, JsString, Object, Promise, Reflect};
use protocol::QueueError;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

/// A binding.
#[derive(Debug)]
pub struct Binding(JsValue);

impl Binding {
    /// The binding of this name in a Worker's environment, which must be of a class.
    ///
    /// # Errors
    ///
    /// What is there instead, for the operator's log.
    pub fn find(env: &JsValue, name: &str, class: &str) -> Result<Self, String> {
        let Some(binding) = Self::find_any(env, name) else {
            return Err(format!("Binding `{name}` is undefined."));
        };
        let found = Object::from(binding.0.clone()).constructor().name();
        if found == class {
            return Ok(binding);
        }
        Err(format!("Binding cannot be cast to the type {class} from {found}"))
    }

    /// The binding of this name, whatever it is; `None` where there is none.
    pub fn find_any(env: &JsValue, name: &str) -> Option<Self> {
        Reflect::get(env, &JsValue::from_str(name)).ok().filter(|value| !value.is_undefined()).map(Self)
    }

    /// Calls a method and waits for what its promise brings.
    ///
    /// # Errors
    ///
    /// The message of the error.
    pub async fn call(&self, method: &str, arguments: &Array) -> Result<JsValue, String> {
        let promise = call(&self.0, method, arguments).and_then(JsCast::dyn_into::<Promise>);
        settled(promise).await
    }

    /// Sends messages of these bodies, as texts, to the queue that this binding is: within the limits of one send.
    ///
    /// # Errors
    ///
    /// [`QueueError`]; some, all or none of the messages may be stored then.
    pub async fn send_batch(&self, bodies: &[String], delay_seconds: u32) -> Result<(), QueueError> {
        // The fields are flat, whatever the documentation's page shows.
        let message = |body: &String| {
            object(&[
                ("body", JsValue::from_str(body)),
                ("contentType", JsValue::from_str("text")),
                ("delaySeconds", JsValue::from(delay_seconds)),
            ])
        };
        let messages: Array = bodies.iter().map(message).collect();
        let sent = settled(self.of::<QueueBinding>().send_batch(&messages)).await;
        sent.map(drop).map_err(|message| QueueError::from_message(&message))
    }

    /// The binding as an object with methods of its own: calling those needs no search for them by their names.
    pub fn of<T: JsCast>(&self) -> &T {
        self.0.unchecked_ref()
    }
}

/// Waits for what a promise brings.
///
/// # Errors
///
/// The message of the error.
pub async fn settled(promise: Result<Promise, JsValue>) -> Result<JsValue, String> {
    let answer = async { JsFuture::from(promise?).await };
    answer.await.map_err(|error| to_text(&error))
}

/// An object with these fields.
pub fn object(fields: &[(&str, JsValue)]) -> Object {
    let object = Object::new();
    for (name, value) in fields {
        // Fails only for what is no object.
        let _ = Reflect::set(&object, &JsValue::from_str(name), value);
    }
    object
}

#[wasm_bindgen]
extern "C" {
    type QueueBinding;

    #[wasm_bindgen(method, catch, js_name = sendBatch)]
    fn send_batch(this: &QueueBinding, messages: &Array) -> Result<Promise, JsValue>;

    type TextEncoder;

    #[wasm_bindgen(constructor)]
    fn new() -> TextEncoder;

    #[wasm_bindgen(method, js_name = encodeInto)]
    fn encode_into(this: &TextEncoder, text: &JsString, bytes: &mut [u8]) -> Encoded;

    type Encoded;

    /// How many UTF-16 units of the text were encoded.
    #[wasm_bindgen(method, getter)]
    fn read(this: &Encoded) -> usize;

    /// To how many bytes.
    #[wasm_bindgen(method, getter)]
    fn written(this: &Encoded) -> usize;
}

/// A JavaScript string as text, for one that may be long: wasm-bindgen's own conversion takes what is ASCII letter by letter,
/// which is some thirty times slower (`cargo xtask bench cpu`).
pub fn long_text(text: &JsString) -> String {
    let (encoder, units) = (TextEncoder::new(), text.length() as usize);
    // As many bytes as units are enough for ASCII, and three for each are for any text.
    let mut bytes = vec![0; units];
    let mut done = encoder.encode_into(text, &mut bytes);
    if done.read() < units {
        bytes = vec![0; units * 3];
        done = encoder.encode_into(text, &mut bytes);
    }
    bytes.truncate(done.written());
    // What the encoder writes is UTF-8.
    String::from_utf8(bytes).unwrap_or_default()
}

/// Calls a method of any object.
fn call(object: &JsValue, method: &str, arguments: &Array) -> Result<JsValue, JsValue> {
    let method: Function = Reflect::get(object, &JsValue::from_str(method))?.dyn_into()?;
    method.apply(object, arguments)
}

/// The message of an error.
pub(crate) fn to_text(error: &JsValue) -> String {
    let message = Reflect::get(error, &JsValue::from_str("message")).unwrap_or_default();
    message.as_string().unwrap_or_else(|| "no reason was given".to_owned())
}
