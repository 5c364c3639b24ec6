//! `schedule:` of a definition.

use super::*;
use crate::schedule::code as schedule_code;

fn with(schedule: &str) -> String {
    format!("workflow: report\nversion: 2\nschedule: {schedule}\nsteps: [ {{ a: {{ wait: 1s }} }} ]\n")
}

fn read(text: &str) -> Result<Checked, Vec<Diagnostic>> {
    crate::definition::read(text, &|_| Err("no files".to_owned()))
}

#[test]
fn it_starts_the_definition_and_is_part_of_its_hash() {
    let checked = read(&with("'0 3 * * 1-5'")).unwrap();
    let spec = checked.plan.schedule.clone().unwrap();
    assert_eq!((spec.action.workflow.as_str(), spec.action.version), ("report", None));
    assert!(
        checked
            .canonical
            .contains(r#""schedule":{"cron":["0 3 * * 1-5"],"zone":"UTC","#),
        "{}",
        checked.canonical
    );
    let again = from_canonical(&checked.canonical).unwrap();
    assert_eq!(again.schedule, Some(spec));
    assert_eq!(again.hash, checked.hash);
    let other = read(&with(
        "{ cron: '0 4 * * 1-5', zone: Europe/Berlin, overlap: buffer_one }",
    ))
    .unwrap();
    assert_ne!(other.hash, checked.hash);
    // Without one, nothing of it is in the canonical form.
    let none = read("workflow: report\nversion: 2\nsteps: [ { a: { wait: 1s } } ]\n").unwrap();
    assert!(none.plan.schedule.is_none() && !none.canonical.contains("schedule"));
}

#[test]
fn what_is_wrong_with_it_has_its_place() {
    for (schedule, code, mark) in [
        ("daily", schedule_code::CRON, "daily"),
        ("{ cron: '@daily', zone: Nowhere }", schedule_code::ZONE, "Nowhere"),
        ("{ cron: '@daily', workflow: other }", code::UNKNOWN_KEY, "workflow"),
        ("{ zone: UTC }", schedule_code::NO_TIMES, "{"),
        ("5", code::SHAPE, "5"),
    ] {
        let text = with(schedule);
        let findings = read(&text).unwrap_err();
        assert_eq!(findings.len(), 1, "{schedule}: {findings:?}");
        assert_eq!(findings[0].code, code, "{schedule}");
        assert_eq!(&text[findings[0].span.clone()], mark, "{schedule}");
    }
}
