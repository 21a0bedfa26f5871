// What the JavaScript pair agrees on; the same limits and the same form of a message as `protocol/` has.

export const KEYS_PER_MESSAGE = 1_000;
export const KEYS_PER_REQUEST = 100_000;
export const KEY_BYTES = 1_024;
export const BODY_BYTES = 16_000_000;
// A message has 128,000 bytes, some hundred of which are the platform's.
export const MESSAGE_BYTES = 127_900;
export const SEND_MESSAGES = 100;
export const SEND_BYTES = 256_000;
export const VERSION = 1;

const encoder = new TextEncoder();

/** Bytes of a text as UTF-8. */
export function utf8Bytes(text) {
  return encoder.encode(text).byteLength;
}

/** Whether a value is an object key: a well-formed text of 1 to 1,024 bytes. */
export function isKey(value) {
  if (typeof value !== "string" || value.length === 0 || value.length > KEY_BYTES) return false;
  // A UTF-16 unit takes three bytes at the most, so most keys need not be encoded to be measured.
  return value.isWellFormed() && (value.length * 3 <= KEY_BYTES || utf8Bytes(value) <= KEY_BYTES);
}
