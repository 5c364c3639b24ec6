//! The task token: names a task and proves that its holder was given it.
//!
//! 36 bytes, base64url: run id (16), task number (4, big endian), the first 16 bytes of an HMAC-SHA-256 over the first
//! twenty and the namespace. The key never leaves the orchestrator; workers copy the token and do not look inside.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

/// Length of the encoded form, in bytes.
pub const ENCODED_LEN: usize = 48;
pub const MAC_LEN: usize = 16;

/// A token taken apart; whether its MAC is right is the orchestrator's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskToken {
    pub run_id: Uuid,
    pub task: u32,
    pub mac: [u8; MAC_LEN],
}

impl TaskToken {
    /// The bytes the MAC is computed over, before the namespace.
    pub fn signed_bytes(run_id: Uuid, task: u32) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(run_id.as_bytes());
        bytes[16..].copy_from_slice(&task.to_be_bytes());
        bytes
    }

    pub fn encode(&self) -> String {
        let mut bytes = [0; 36];
        bytes[..20].copy_from_slice(&Self::signed_bytes(self.run_id, self.task));
        bytes[20..].copy_from_slice(&self.mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None` for anything that is not a token.
    pub fn decode(text: &str) -> Option<Self> {
        if text.len() != ENCODED_LEN {
            return None;
        }
        let mut bytes = [0; 36];
        let written = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        if written != bytes.len() {
            return None;
        }
        Some(Self {
            run_id: Uuid::from_slice(bytes.get(..16)?).ok()?,
            task: u32::from_be_bytes(bytes.get(16..20)?.try_into().ok()?),
            mac: bytes.get(20..)?.try_into().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_encoding() {
        let token = TaskToken {
            run_id: Uuid::from_u128(7),
            task: 3,
            mac: [9; 16],
        };
        let text = token.encode();
        assert_eq!(text.len(), ENCODED_LEN);
        assert_eq!(TaskToken::decode(&text), Some(token));
        assert_eq!(TaskToken::decode(&text[1..]), None);
        assert_eq!(TaskToken::decode(&"!".repeat(48)), None);
    }
}
