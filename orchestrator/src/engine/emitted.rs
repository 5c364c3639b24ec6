//! What a run emits, as CloudEvents 1.0 in binary mode.
//!
//! A subject of one token is the kind of an event of Knarr's own stream, `knarr.event.<ns>.<workflow>.<workflow id>.<kind>`,
//! which keeps it. Any other is the user's: whoever listens there gets it, and a stream of theirs may keep it.
//!
//! **Invariant:** nothing goes to a subject by which Knarr or NATS is spoken to.

use bytes::Bytes;
use knarr_schemas::{header, subject};
use serde_json::Value;

use super::outgoing::RunRef;
use crate::bus::{Delivery, Headers, Outgoing};

/// What NATS takes for a subject by default is longer; nobody needs it.
const MAX_SUBJECT_BYTES: usize = 512;

/// `None` for a subject that nothing may be emitted to; that is logged.
pub(super) fn message(run: &RunRef, id: String, step: &str, to: &str, body: &Value) -> Option<Outgoing> {
    let own = subject::event(
        run.namespace.as_str(),
        run.workflow.as_str(),
        &run.workflow_id_token,
        to,
    );
    let (subject, delivery) = match own {
        Ok(subject) if !to.contains('.') => (subject, Delivery::Stream),
        _ if may_emit(to) => (to.to_owned(), Delivery::Core),
        _ => {
            tracing::error!(run = %run.run_id, step, subject = to, code = "KN0339", "nothing may be emitted to this subject");
            return None;
        }
    };
    let headers: Headers = [
        (header::NATS_MSG_ID, id.clone()),
        (header::CE_SPECVERSION, "1.0".to_owned()),
        (header::CE_ID, id),
        (header::CE_SOURCE, run.source()),
        (header::CE_TYPE, to.to_owned()),
        (header::CE_SUBJECT, step.to_owned()),
        (header::CE_DATACONTENTTYPE, "application/json".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value))
    .collect();
    Some(Outgoing {
        subject,
        headers,
        payload: Bytes::from(serde_json::to_vec(body).unwrap_or_default()),
        delivery,
    })
}

/// A plain subject that speaks to nobody but listeners.
fn may_emit(to: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '*' && c != '>';
    let first = to.split('.').next().unwrap_or_default();
    to.len() <= MAX_SUBJECT_BYTES
        && to.split('.').all(|token| !token.is_empty() && token.chars().all(plain))
        && !first.starts_with('$')
        && !first.eq_ignore_ascii_case("knarr")
        && !first.starts_with("_INBOX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_emitted_to_what_speaks_to_knarr_or_nats() {
        for (to, allowed) in [
            ("orders.paid", true),
            ("a.b.c", true),
            ("knarr.run.default.o-1.cancel", false),
            ("knarr.task.default.orders.pay", false),
            ("$JS.API.STREAM.DELETE.KNARR_IN", false),
            ("$SYS.x", false),
            ("_INBOX.a.b", false),
            ("a.*", false),
            ("a.>", false),
            ("a..b", false),
            ("", false),
            ("a b.c", false),
            (&"x.".repeat(300), false),
        ] {
            assert_eq!(may_emit(to), allowed, "{to}");
        }
    }
}
