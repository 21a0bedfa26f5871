use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whether an object that was uploaded after its deletion was requested is kept.
///
/// R2 deletes whatever is under a key, so that keeping it takes a look at the object first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Fence {
    /// Looks when the deletion is late: there has been time for an upload.
    #[default]
    Auto,
    /// Looks at every object.
    Always,
    /// Never looks.
    Off,
}

/// How long after the request the first attempt is taken for prompt, in milliseconds.
const PROMPT_MS: u64 = 60_000;

impl Fence {
    /// Every fence there is.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Always, Self::Off];

    /// The fence as the request, the message and the ledger say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Off => "off",
        }
    }

    /// The fence of the messages of a deletion with an undo window of so many seconds: whoever may think twice may upload
    /// again meanwhile, however short the window.
    #[must_use]
    pub fn with_undo_window(self, seconds: u32) -> Self {
        match self {
            Self::Auto if seconds > 0 => Self::Always,
            fence => fence,
        }
    }

    /// Whether keys are looked at before a call deletes them, which is begun `age_ms` after the request, by delivery number
    /// `attempt` of a message of this `generation`.
    pub fn looks(self, generation: u32, attempt: u32, age_ms: u64) -> bool {
        match self {
            Self::Auto => generation > 0 || attempt > 1 || age_ms > PROMPT_MS,
            Self::Always => true,
            Self::Off => false,
        }
    }
}

impl FromStr for Fence {
    type Err = InvalidFence;

    fn from_str(text: &str) -> Result<Self, InvalidFence> {
        Self::ALL.into_iter().find(|fence| fence.as_str() == text).ok_or(InvalidFence)
    }
}

impl TryFrom<String> for Fence {
    type Error = InvalidFence;

    fn try_from(text: String) -> Result<Self, InvalidFence> {
        text.parse()
    }
}

impl From<Fence> for &'static str {
    fn from(fence: Fence) -> Self {
        fence.as_str()
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected auto, always or off")]
pub struct InvalidFence;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_looks_at_what_is_late_always_at_everything_and_off_at_nothing() {
        for (generation, attempt, age_ms, late) in [
            (0, 1, 0, false),
            (0, 1, 60_000, false),
            (0, 1, 60_001, true),
            (0, 2, 0, true),
            (0, 21, 90_000, true),
            (1, 1, 0, true),
        ] {
            let looks = Fence::ALL.map(|fence| fence.looks(generation, attempt, age_ms));
            assert_eq!(looks, [late, true, false], "{generation} {attempt} {age_ms}");
        }
    }

    #[test]
    fn an_undo_window_is_time_for_an_upload_however_short() {
        assert_eq!(Fence::ALL.map(|fence| fence.with_undo_window(0)), Fence::ALL);
        let with_a_window = Fence::ALL.map(|fence| fence.with_undo_window(1));
        assert_eq!(with_a_window, [Fence::Always, Fence::Always, Fence::Off]);
    }

    #[test]
    fn every_fence_reads_back_and_nothing_else_is_one() {
        for fence in Fence::ALL {
            assert_eq!(fence.as_str().parse(), Ok(fence));
            let json = serde_json::to_string(&fence).unwrap();
            assert_eq!(json, format!("\"{fence}\""));
            assert_eq!(serde_json::from_str::<Fence>(&json).unwrap(), fence);
        }
        for json in ["\"\"", "\"AUTO\"", "\"on\"", "null", "true", "{\"auto\":null}"] {
            assert!(serde_json::from_str::<Fence>(json).is_err(), "{json}");
        }
    }
}
