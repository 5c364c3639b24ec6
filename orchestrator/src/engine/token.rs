//! Makes and checks the tokens of tasks, and of messages between runs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use knarr_core::ids::{RunId, TaskNo};
use knarr_schemas::token::{MAC_LEN, TaskToken};
use ring::hmac;

/// What the token of a message between runs vouches for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    /// `message` or `answer`.
    pub(super) verb: &'a str,
    pub(super) namespace: &'a str,
    pub(super) workflow_id: &'a str,
    pub(super) body: &'a [u8],
}

pub(super) struct TokenKey(hmac::Key);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    fn mac(&self, run_id: RunId, task: TaskNo, namespace: &str) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&TaskToken::signed_bytes(run_id.0, task.0));
        context.update(namespace.as_bytes());
        context.sign()
    }

    pub(super) fn issue(&self, run_id: RunId, task: TaskNo, namespace: &str) -> String {
        let mut mac = [0; MAC_LEN];
        mac.copy_from_slice(&self.mac(run_id, task, namespace).as_ref()[..MAC_LEN]);
        TaskToken {
            run_id: run_id.0,
            task: task.0,
            mac,
        }
        .encode()
    }

    /// Of a message between runs: for this body under this subject, and no other.
    pub(super) fn sign(&self, message: &Signed<'_>) -> String {
        URL_SAFE_NO_PAD.encode(&self.message_mac(message).as_ref()[..MAC_LEN])
    }

    pub(super) fn is_signed(&self, token: &str, message: &Signed<'_>) -> bool {
        let Ok(given) = URL_SAFE_NO_PAD.decode(token) else {
            return false;
        };
        let expected = self.message_mac(message);
        let expected = &expected.as_ref()[..MAC_LEN];
        // Constant time: every byte is looked at.
        let difference = expected.iter().zip(&given).fold(0, |sum, (a, b)| sum | (a ^ b));
        given.len() == MAC_LEN && difference == 0
    }

    fn message_mac(&self, message: &Signed<'_>) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        // A task's begins with the bytes of its token; what follows cannot be taken for them.
        context.update(b"message between runs");
        for part in [message.verb, message.namespace, message.workflow_id] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.update(message.body);
        context.sign()
    }

    /// `None` for what this cluster did not issue for this namespace.
    pub(super) fn verify(&self, text: &str, namespace: &str) -> Option<(RunId, TaskNo)> {
        let token = TaskToken::decode(text)?;
        let (run_id, task) = (RunId(token.run_id), TaskNo(token.task));
        let expected = self.mac(run_id, task, namespace);
        // Constant time: every byte is looked at.
        let difference = expected
            .as_ref()
            .iter()
            .zip(token.mac)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        (difference == 0).then_some((run_id, task))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_worth_nothing_elsewhere_or_changed() {
        let key = TokenKey::new(&[7; 32]);
        let message = Signed {
            verb: "message",
            namespace: "a",
            workflow_id: "o-1",
            body: b"{}",
        };
        let token = key.sign(&message);
        assert!(key.is_signed(&token, &message));
        for other in [
            Signed {
                verb: "answer",
                ..message
            },
            Signed {
                namespace: "b",
                ..message
            },
            Signed {
                workflow_id: "o-2",
                ..message
            },
            Signed { body: b"[]", ..message },
        ] {
            assert!(!key.is_signed(&token, &other), "{other:?}");
        }
        assert!(!TokenKey::new(&[8; 32]).is_signed(&token, &message));
        assert!(!key.is_signed("", &message) && !key.is_signed(&token[1..], &message));
    }

    #[test]
    fn a_token_is_worth_nothing_in_another_namespace_or_changed() {
        let key = TokenKey::new(&[7; 32]);
        let run = RunId(uuid::Uuid::from_u128(42));
        let token = key.issue(run, TaskNo(3), "a");
        assert_eq!(key.verify(&token, "a"), Some((run, TaskNo(3))));
        assert_eq!(key.verify(&token, "b"), None);
        assert_eq!(TokenKey::new(&[8; 32]).verify(&token, "a"), None);
        let other = key.issue(run, TaskNo(4), "a");
        let mac = TaskToken::decode(&token).unwrap().mac;
        let mixed = TaskToken {
            mac,
            ..TaskToken::decode(&other).unwrap()
        };
        assert_eq!(key.verify(&mixed.encode(), "a"), None);
    }
}
