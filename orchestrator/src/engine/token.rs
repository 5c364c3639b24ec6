//! Makes and checks task tokens.

use knarr_core::ids::{RunId, TaskNo};
use knarr_schemas::token::{MAC_LEN, TaskToken};
use ring::hmac;

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
