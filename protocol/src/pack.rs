use std::fmt;

use scan::Plain;

use crate::json::KeyJson;
use crate::limits::{
    DELETE_KEYS_MAX, MESSAGE_BODY_BYTES_MAX, MESSAGE_METADATA_BYTES, SEND_BYTES_MAX, SEND_MESSAGES_MAX,
};
use crate::message::{MESSAGE_TAIL, message_head};
use crate::{ChunkRef, DeletionId, Fence, ObjectKey, Timestamp};

/// One message, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The message's body: at most [`MESSAGE_BODY_BYTES_MAX`] bytes.
    pub body: String,
    /// How many keys it carries: 1 to [`DELETE_KEYS_MAX`].
    pub keys: usize,
}

/// Packs keys into as few messages as their order allows: each is closed at [`DELETE_KEYS_MAX`] keys, or when the next key
/// would take it over [`MESSAGE_BODY_BYTES_MAX`] bytes as they are sent, escapes included.
///
/// A key at a time, so that neither the keys nor the messages of a request need be in memory together.
#[derive(Clone)]
pub struct Packer {
    /// The chunk that the open message is of.
    chunk: ChunkRef,
    requested_at: Timestamp,
    fence: Fence,
    /// The message that takes keys, once there is one.
    open: Option<Packed>,
    /// How many bytes the last one had: the next is like it as a rule, and need not grow to that.
    last_bytes: usize,
}

impl fmt::Debug for Packer {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("chunk", &self.chunk).finish_non_exhaustive()
    }
}

impl Packer {
    /// A packer whose first message is of this chunk, and each further one of the next.
    pub fn new(first_chunk: ChunkRef, requested_at: Timestamp, fence: Fence) -> Self {
        Self { chunk: first_chunk, requested_at, fence, open: None, last_bytes: 0 }
    }

    /// Says which fence the messages have that are opened from now on.
    pub fn set_fence(&mut self, fence: Fence) {
        self.fence = fence;
    }

    /// Takes in a key, which MUST NOT have been there before. Answers with the message that it had no room in, if one is
    /// full.
    pub fn push(&mut self, key: &ObjectKey<'_>) -> Option<Packed> {
        self.push_json(&KeyJson::of(key))
    }

    /// The same for a key that is known to need no escape.
    pub fn push_plain(&mut self, key: Plain<'_>) -> Option<Packed> {
        self.push_json(&KeyJson::Plain(key))
    }

    fn push_json(&mut self, key: &KeyJson<'_>) -> Option<Packed> {
        let is_full = self.open.as_ref().is_some_and(|message| !has_room(message, key.len()));
        let full = if is_full { self.finish() } else { None };
        let head = || {
            let mut body = message_head(&self.chunk, self.requested_at, self.fence);
            body.reserve_exact(self.last_bytes.saturating_sub(body.len()));
            Packed { body, keys: 0 }
        };
        let message = self.open.get_or_insert_with(head);
        if message.keys > 0 {
            message.body.push(',');
        }
        key.append_to(&mut message.body);
        message.keys += 1;
        full
    }

    /// Whether no message is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// Closes the open message, the last as a rule; `None` when there is none. A further key begins the next.
    pub fn finish(&mut self) -> Option<Packed> {
        let mut message = self.open.take()?;
        message.body.push_str(MESSAGE_TAIL);
        self.chunk.chunk += 1;
        self.last_bytes = message.body.len();
        Some(message)
    }
}

/// Packs `keys`, which MUST have no duplicates, into messages from the chunk 0 on.
pub fn pack_keys(
    deletion: &DeletionId,
    generation: u32,
    requested_at: Timestamp,
    fence: Fence,
    keys: &[ObjectKey<'_>],
) -> Vec<Packed> {
    let first_chunk = ChunkRef { deletion: deletion.clone(), generation, chunk: 0 };
    let mut packer = Packer::new(first_chunk, requested_at, fence);
    let mut messages: Vec<Packed> = keys.iter().filter_map(|key| packer.push(key)).collect();
    messages.extend(packer.finish());
    messages
}

/// Groups the bodies of messages, in order, into sends that the Queue takes: at most [`SEND_MESSAGES_MAX`] messages and
/// [`SEND_BYTES_MAX`] bytes, the platform's metadata counted.
pub fn group_into_sends(bodies: Vec<String>) -> Vec<Vec<String>> {
    let mut sends: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for body in bodies {
        let added = body.len() + MESSAGE_METADATA_BYTES;
        match sends.last_mut() {
            Some(send) if send.len() < SEND_MESSAGES_MAX && bytes + added <= SEND_BYTES_MAX => {
                bytes += added;
                send.push(body);
            }
            _ => {
                bytes = added;
                sends.push(vec![body]);
            }
        }
    }
    sends
}

fn has_room(message: &Packed, key_bytes: usize) -> bool {
    let bytes = message.body.len() + 1 + key_bytes + MESSAGE_TAIL.len();
    message.keys < DELETE_KEYS_MAX && bytes <= MESSAGE_BODY_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ChunkMessage;
    use crate::limits::{KEY_BYTES_MAX, MESSAGE_BYTES_MAX};

    fn id() -> DeletionId {
        DeletionId::new(Timestamp::from_millis(1_763_930_000_000), 42)
    }

    fn pack(keys: &[String]) -> Vec<Packed> {
        let keys: Vec<ObjectKey<'_>> =
            keys.iter().map(|key| ObjectKey::parse(key.as_str()).unwrap()).collect();
        pack_keys(&id(), 0, Timestamp::from_millis(1_763_930_000_000), Fence::Always, &keys)
    }

    /// Keys around every edge: short and longest, plain and such that JSON makes six bytes of one.
    fn keys() -> impl Strategy<Value = Vec<String>> {
        let key = prop_oneof![
            "[a-z0-9/_-]{1,60}",
            "\\PC{1,200}",
            (1_usize..=KEY_BYTES_MAX).prop_map(|bytes| "\u{1}".repeat(bytes)),
            (900_usize..=KEY_BYTES_MAX).prop_map(|bytes| "k".repeat(bytes)),
        ];
        prop::collection::vec(key, 1..600)
    }

    proptest! {
        // A case packs hundreds of kilobytes: fewer of them than usual find the same edges.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn packing_keeps_every_key_once_in_order_and_within_the_limits(keys in keys()) {
            let packed = pack(&keys);
            let mut unpacked = Vec::new();
            for (number, message) in packed.iter().enumerate() {
                prop_assert!(message.body.len() + MESSAGE_METADATA_BYTES <= MESSAGE_BYTES_MAX);
                let read = ChunkMessage::from_json(&message.body).unwrap();
                prop_assert_eq!(read.chunk.chunk as usize, number);
                prop_assert_eq!(read.keys.len(), message.keys);
                unpacked.extend(read.keys.iter().map(|key| key.as_str().to_owned()));
            }
            prop_assert_eq!(unpacked, keys);
        }

        #[test]
        fn a_message_is_closed_only_when_the_next_key_does_not_fit(keys in keys()) {
            let packed = pack(&keys);
            let mut next = 0;
            for message in &packed[..packed.len() - 1] {
                next += message.keys;
                let with_next = message.body.len() + 1 + serde_json::to_string(&keys[next]).unwrap().len();
                prop_assert!(message.keys == DELETE_KEYS_MAX || with_next > MESSAGE_BODY_BYTES_MAX);
            }
        }

        #[test]
        fn sends_keep_every_message_in_order_and_within_the_limits(
            bytes in prop::collection::vec(1_usize..=MESSAGE_BODY_BYTES_MAX, 0..300),
        ) {
            let bodies: Vec<String> = bytes.iter().map(|&bytes| "b".repeat(bytes)).collect();
            let sends = group_into_sends(bodies.clone());
            for send in &sends {
                let bytes: usize = send.iter().map(|body| body.len() + MESSAGE_METADATA_BYTES).sum();
                prop_assert!(!send.is_empty() && send.len() <= SEND_MESSAGES_MAX && bytes <= SEND_BYTES_MAX);
            }
            prop_assert_eq!(sends.concat(), bodies);
        }
    }

    #[test]
    fn a_message_takes_keys_to_its_last_byte_and_not_one_byte_more() {
        let overhead = pack(&["k".to_owned()])[0].body.len() - 1;
        // Each further key has two quotes and a comma.
        let mut room = MESSAGE_BODY_BYTES_MAX - overhead - 1_000;
        let mut keys = vec!["k".repeat(1_000)];
        while room > KEY_BYTES_MAX + 3 {
            keys.push("k".repeat(1_000));
            room -= 1_003;
        }
        keys.push("k".repeat(room - 3));
        let full = pack(&keys);
        assert_eq!((full.len(), full[0].body.len()), (1, MESSAGE_BODY_BYTES_MAX));
        keys.push("k".repeat(room - 2));
        keys.swap_remove(keys.len() - 2);
        assert_eq!(pack(&keys).len(), 2);
    }

    #[test]
    fn a_send_takes_messages_to_its_last_one_and_to_its_last_byte() {
        let lengths = |bytes: &[usize]| -> Vec<usize> {
            let bodies = bytes.iter().map(|&bytes| "b".repeat(bytes)).collect();
            group_into_sends(bodies).iter().map(Vec::len).collect()
        };
        assert_eq!(lengths(&[1; 2 * SEND_MESSAGES_MAX + 1]), [SEND_MESSAGES_MAX, SEND_MESSAGES_MAX, 1]);
        let half = SEND_BYTES_MAX / 2 - MESSAGE_METADATA_BYTES;
        assert_eq!(lengths(&[half, half]), [2]);
        assert_eq!(lengths(&[half, half + 1]), [1, 1]);
        let third = (SEND_BYTES_MAX - 1) / 3 - MESSAGE_METADATA_BYTES;
        assert_eq!(lengths(&[third, third, third + 1, third + 1]), [3, 1]);
        assert_eq!(lengths(&[third, third, third + 2, third + 2]), [2, 2]);
    }

    #[test]
    fn a_packer_is_empty_without_an_open_message_and_shows_no_key() {
        let mut packer = Packer::new(
            ChunkRef { deletion: id(), generation: 0, chunk: 7 },
            Timestamp::from_millis(1_763_930_000_000),
            Fence::Auto,
        );
        packer.set_fence(Fence::Off);
        assert!(packer.is_empty());
        assert_eq!(packer.push(&ObjectKey::parse("users/alice.jpg").unwrap()), None);
        assert!(!packer.is_empty());
        let shown = format!("{packer:?}");
        assert!(shown.contains("chunk: 7") && !shown.contains("alice"), "{shown}");
        let message = packer.finish().unwrap();
        assert_eq!(ChunkMessage::from_json(&message.body).unwrap().fence, Fence::Off);
        assert!(packer.is_empty());
    }

    #[test]
    fn a_thousand_keys_are_one_message_and_one_more_makes_two() {
        let keys: Vec<String> = (0..=DELETE_KEYS_MAX).map(|n| format!("proj_42/{n}")).collect();
        assert_eq!(pack(&keys[1..]).len(), 1);
        assert_eq!(pack(&keys).iter().map(|message| message.keys).collect::<Vec<_>>(), [1_000, 1]);
    }

    /// The price of a message is counted per 64,000 bytes: a thousand keys of 60 bytes must stay in the first.
    #[test]
    fn a_thousand_keys_of_60_bytes_cost_one_unit_of_the_queue() {
        let keys: Vec<String> = (0..DELETE_KEYS_MAX).map(|n| format!("{n:060}")).collect();
        let packed = pack(&keys);
        assert_eq!(packed.len(), 1);
        assert!(packed[0].body.len() + MESSAGE_METADATA_BYTES <= 64_000, "{} bytes", packed[0].body.len());
    }
}
