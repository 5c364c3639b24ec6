//! `triggers:` of a definition.

use super::*;
use crate::trigger::code as trigger_code;
use crate::trigger::spec::{Begin, Gather, IdFrom};

fn with(trigger: &str) -> String {
    format!(
        "workflow: order\nversion: 2\nid: input.id\ntriggers:\n  t: {trigger}\nsteps: [ {{ a: {{ wait: 1s }} }} ]\n"
    )
}

fn read(text: &str) -> Result<Checked, Vec<Diagnostic>> {
    crate::definition::read(text, &|_| Err("no files".to_owned()))
}

#[test]
fn they_are_part_of_the_hash_and_come_back_from_the_canonical_form() {
    for trigger in [
        "{ stream: ORDERS }",
        "{ stream: ORDERS, subject: 'o.*.placed', filter: '${ event.data.n > 1 }', id: event.data.id, input: { a: '${ event.subject }' }, from: all }",
        "{ stream: ORDERS, id: event.data.id, signal: paid, start: true, id_reuse: reject_duplicate, debounce: 5s }",
        "{ stream: ORDERS, batch: { max: 10 }, id_conflict: use_existing, id: 'event.headers[\"Order-Id\"]' }",
    ] {
        let checked = read(&with(trigger)).unwrap_or_else(|findings| panic!("{trigger}: {findings:?}"));
        assert_eq!(checked.findings, [], "{trigger}");
        let again = from_canonical(&checked.canonical).unwrap();
        assert_eq!(again.triggers, checked.plan.triggers, "{trigger}");
        assert_eq!(again.hash, checked.hash);
        let spec = &checked.plan.triggers[0];
        assert_eq!((&*spec.name, spec.workflow.as_str()), ("t", "order"));
        let sent = crate::definition::from_trigger_json(spec.json()).unwrap();
        assert_eq!(sent, *spec, "{trigger}");
        // It means the same, and is not only written the same.
        assert_eq!(format!("{:?}", sent.act), format!("{:?}", spec.act));
        assert_eq!((sent.begin, sent.gather), (spec.begin, spec.gather));
        assert_eq!(matches!(sent.id, IdFrom::Input(_)), matches!(spec.id, IdFrom::Input(_)));
    }
    let first = read(&with("{ stream: ORDERS }")).unwrap();
    assert!(matches!(first.plan.triggers[0].id, IdFrom::Input(_)));
    assert_eq!(first.plan.triggers[0].begin, Begin::New);
    let debounced = read(&with("{ stream: S, debounce: 2s }")).unwrap();
    let Some(Gather::Debounce { quiet, max_wait }) = debounced.plan.triggers[0].gather else {
        panic!()
    };
    assert_eq!((quiet.as_millis(), max_wait.as_millis()), (2_000, 20_000));
}

#[test]
fn what_a_trigger_does_not_say_is_usual() {
    use crate::trigger::spec::{Conflict, Reuse};
    let of = |trigger: &str| {
        let mut plan = read(&with(trigger)).unwrap().plan;
        plan.triggers.remove(0)
    };
    let said_nothing = of("{ stream: S }");
    assert_eq!((said_nothing.begin, said_nothing.gather), (Begin::New, None));
    assert!(said_nothing.filter.is_none() && said_nothing.input.is_none());
    assert_eq!(&*said_nothing.source.subject, ">", "all of the stream");
    let act = &said_nothing.act;
    assert_eq!(
        (act.start, &act.signal, act.reuse, act.conflict),
        (true, &None, Reuse::AllowDuplicate, Conflict::Fail)
    );
    let signals = of("{ stream: S, id: event.data, signal: paid }");
    assert!(!signals.act.start, "it starts nothing unless it is told to");
    let second = Span::from_secs;
    for (said, gather) in [
        (
            "batch: {}",
            Gather::Batch {
                max: 100,
                wait: second(1),
            },
        ),
        (
            "batch: { max: 7 }",
            Gather::Batch {
                max: 7,
                wait: second(1),
            },
        ),
        (
            "batch: { wait: 9s }",
            Gather::Batch {
                max: 100,
                wait: second(9),
            },
        ),
        (
            "batch: { max: 1000 }",
            Gather::Batch {
                max: 1_000,
                wait: second(1),
            },
        ),
        (
            "debounce: 2s",
            Gather::Debounce {
                quiet: second(2),
                max_wait: second(20),
            },
        ),
        (
            "debounce: { quiet: 2s, max_wait: 2s }",
            Gather::Debounce {
                quiet: second(2),
                max_wait: second(2),
            },
        ),
        (
            "debounce: 30d",
            Gather::Debounce {
                quiet: second(2_592_000),
                max_wait: second(2_592_000),
            },
        ),
    ] {
        assert_eq!(of(&format!("{{ stream: S, {said} }}")).gather, Some(gather), "{said}");
    }
}

#[test]
fn what_is_wrong_with_one_has_its_place() {
    for (trigger, code, mark) in [
        ("{ stream: KNARR_IN }", trigger_code::OWN_SUBJECT, "KNARR_IN"),
        (
            "{ stream: S, subject: knarr.event.a }",
            trigger_code::OWN_SUBJECT,
            "knarr.event.a",
        ),
        (
            "{ stream: S, subject: '$JS.API' }",
            trigger_code::OWN_SUBJECT,
            "'$JS.API'",
        ),
        ("{ subject: '>' }", trigger_code::OWN_SUBJECT, "'>'"),
        ("{ subject: '*.a' }", trigger_code::OWN_SUBJECT, "'*.a'"),
        ("{ stream: a.b }", trigger_code::BAD_SOURCE, "a.b"),
        ("{ stream: S, subject: a..b }", trigger_code::BAD_SOURCE, "a..b"),
        ("{ stream: S, subject: '>.a' }", trigger_code::BAD_SOURCE, "'>.a'"),
        ("{ stream: S, subject: 'a b' }", trigger_code::BAD_SOURCE, "'a b'"),
        ("{ }", code::MISSING_KEY, "{"),
        ("{ stream: S, strem: T }", code::UNKNOWN_KEY, "strem"),
        ("{ stream: S, workflow: x }", code::UNKNOWN_KEY, "workflow"),
        ("{ stream: S, signal: paid }", code::MISSING_KEY, "paid"),
        ("{ stream: S, start: false }", code::CONTRADICTION, "false"),
        (
            "{ stream: S, filter: 'event.data >' }",
            code::EXPRESSION,
            "'event.data >'",
        ),
        ("{ stream: S, filter: input.a }", code::UNKNOWN_NAME, "input.a"),
        ("{ stream: S, id: event.body.id }", code::UNKNOWN_NAME, "event.body.id"),
        (
            "{ stream: S, input: '${ steps.a }' }",
            code::UNKNOWN_NAME,
            "'${ steps.a }'",
        ),
        (
            "{ stream: S, id: event.data, signal: p, id_conflict: use_existing }",
            code::CONTRADICTION,
            "use_existing",
        ),
        ("{ stream: S, id_reuse: never }", code::BAD_VALUE, "never"),
        ("{ stream: S, from: here }", code::BAD_VALUE, "here"),
        ("{ stream: S, batch: { max: 1001 } }", code::BAD_VALUE, "1001"),
        (
            "{ stream: S, batch: { max: 2 }, debounce: 1s }",
            code::CONTRADICTION,
            "{",
        ),
        ("{ stream: S, debounce: { max_wait: 3s } }", code::MISSING_KEY, "{"),
        ("{ stream: S, debounce: 31d }", code::BAD_VALUE, "31d"),
        ("5", code::SHAPE, "5"),
    ] {
        let text = with(trigger);
        let findings = read(&text).err().unwrap_or_else(|| panic!("{trigger} is taken"));
        assert_eq!(findings.len(), 1, "{trigger}: {findings:?}");
        assert_eq!(findings[0].code, code, "{trigger}: {findings:?}");
        assert_eq!(&text[findings[0].span.clone()], mark, "{trigger}");
    }
    let kept = read(&with("{ subject: a.b }")).unwrap();
    assert_eq!(kept.findings.len(), 1);
    assert_eq!(
        (kept.findings[0].code, kept.findings[0].severity),
        (trigger_code::NOT_KEPT, Severity::Notice)
    );
}
