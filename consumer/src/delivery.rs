use protocol::Timestamp;

/// One message as the Queue delivered it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The Queue's id of the message, the same in every delivery and in the dead-letter queue.
    pub message_id: String,
    /// How often the message has been delivered by this queue, this delivery included.
    pub attempts: u32,
    /// When the message was sent.
    pub sent_at: Timestamp,
    /// What it carries.
    pub body: Body,
}

/// A message's body.
#[derive(Clone)]
pub enum Body {
    /// Text, as all of ours are.
    Text(String),
    /// Something else, that another sender must have put into our queue; as JSON, to be kept.
    Other(String),
}

impl std::fmt::Debug for Body {
    /// A body has keys in it, and is never shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Other(json) => write!(f, "Other({} bytes)", json.len()),
        }
    }
}
