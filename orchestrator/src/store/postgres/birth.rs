//! How a run's birth is kept in `events`: without what its row in `runs` says as well.
//!
//! Both are written by the same commit, and none of it ever changes: ids, workflow and request. It is half of what a run that
//! only waits takes up. Whoever reads a transition is given the text as it was written, so nobody else knows; for people
//! the view `event_rows` shows it whole.
//!
//! **Invariant:** only what is found again letter for letter is left out. A text that is written otherwise stays as it is.

use std::borrow::Cow;
use std::fmt::Write as _;

use knarr_core::ids::RunId;

use crate::store::{RunRow, format};

/// From this format level of the cluster on.
pub(super) const LEVEL: i32 = format::SECOND;

const BEGINS: &str = r#"[{"run_started":{"#;
/// What follows the part that is left out; a whole birth begins with the run's id.
const GOES_ON: &str = r#""version":"#;

/// What the row of a run says of its birth.
pub(super) struct Said<'a> {
    pub(super) run_id: RunId,
    pub(super) namespace: &'a str,
    pub(super) workflow_id: &'a str,
    pub(super) workflow: &'a str,
    pub(super) request_id: Option<&'a str>,
}

impl<'a> Said<'a> {
    pub(super) fn by(row: &'a RunRow) -> Self {
        Self {
            run_id: row.run_id,
            namespace: row.namespace.as_str(),
            workflow_id: row.workflow_id.as_str(),
            workflow: row.workflow.as_str(),
            request_id: row.request_id.as_ref().map(|id| id.as_str()),
        }
    }

    /// As core writes it.
    fn text(&self) -> String {
        let mut text = String::with_capacity(192);
        let fields = [
            ("namespace", Some(self.namespace)),
            ("workflow_id", Some(self.workflow_id)),
            ("workflow", Some(self.workflow)),
            ("request_id", self.request_id),
        ];
        // Writing to a string cannot fail, nor can a text be no JSON.
        let _ = write!(text, r#""run_id":"{}","#, self.run_id.0.hyphenated());
        for (name, value) in fields {
            let Some(value) = value else { continue };
            let _ = write!(
                text,
                r#""{name}":{},"#,
                serde_json::to_string(value).unwrap_or_default()
            );
        }
        text
    }
}

/// The text to be stored.
pub(super) fn shortened<'a>(body: &'a str, said: &Said<'_>) -> Cow<'a, str> {
    let rest = body
        .strip_prefix(BEGINS)
        .and_then(|birth| birth.strip_prefix(said.text().as_str()))
        .filter(|rest| rest.starts_with(GOES_ON));
    match rest {
        Some(rest) => Cow::Owned([BEGINS, rest].concat()),
        None => Cow::Borrowed(body),
    }
}

/// The text as it was before.
pub(super) fn restored(body: String, said: &Said<'_>) -> String {
    match body.strip_prefix(BEGINS).filter(|rest| rest.starts_with(GOES_ON)) {
        Some(rest) => [BEGINS, said.text().as_str(), rest].concat(),
        None => body,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use knarr_core::definition;
    use knarr_core::ids::{Namespace, RequestId, WorkflowId};
    use knarr_core::run::input::Start;
    use knarr_core::run::{self, Transition};
    use knarr_core::time::Timestamp;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn birth(workflow_id: &str, request_id: Option<&str>) -> Transition {
        let text = "workflow: nap\nversion: 3\nsteps:\n  - sleep: { wait: 1h }\n";
        let checked = definition::read(text, &|_| Err(String::new())).unwrap();
        let start = Start {
            run_id: RunId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_00ff)),
            namespace: Namespace::new("default"),
            workflow_id: WorkflowId::new(workflow_id),
            input: Arc::new(json!({"version": 7})),
            request_id: request_id.map(RequestId::new),
            search_attributes: BTreeMap::new(),
            answer: None,
            traceparent: None,
            parent: None,
            priority: None,
            queued: false,
            begins_at: None,
            continues: None,
        };
        let (_, transition) = run::start(&checked.plan, start, Timestamp(1_700_000_000_000_000)).unwrap();
        transition
    }

    fn said<'a>(workflow_id: &'a str, request_id: Option<&'a str>) -> Said<'a> {
        Said {
            run_id: RunId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_00ff)),
            namespace: "default",
            workflow_id,
            workflow: "nap",
            request_id,
        }
    }

    #[test]
    fn a_birth_is_found_again_letter_for_letter_without_what_its_row_says() {
        let odd = "a\"b\\c\u{1}\n\u{7f}é\u{2028}/😀";
        for (workflow_id, request_id) in [("o-1", Some("r")), ("o-1", None), (odd, Some(odd)), ("", Some(""))] {
            let body = birth(workflow_id, request_id).into_body();
            let said = said(workflow_id, request_id);
            let stored = shortened(&body, &said);
            assert!(
                stored.starts_with(r#"[{"run_started":{"version":3,"definition":""#),
                "{stored}"
            );
            assert!(serde_json::from_str::<serde_json::Value>(&stored).is_ok());
            assert_eq!(restored(stored.into_owned(), &said), body);
        }
    }

    #[test]
    fn what_a_row_says_otherwise_stays() {
        let body = birth("o-1", Some("r")).into_body();
        for said in [said("o-2", Some("r")), said("o-1", None), said("o-1", Some("s"))] {
            assert_eq!(shortened(&body, &said), body);
            assert_eq!(restored(body.clone(), &said), body);
        }
        for other in ["", "[]", r#"[{"run_started":{}}]"#, r#"[{"step_passed":{"step":"a"}}]"#] {
            let said = said("o-1", Some("r"));
            assert_eq!(shortened(other, &said), other);
            assert_eq!(restored(other.to_owned(), &said), other);
        }
    }
}
