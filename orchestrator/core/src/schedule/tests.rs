//! What calendars mean: by tables, against another implementation, and over every zone there is.

mod oracle;
mod zones;

use super::times::Times;
use super::{Overlap, Spec};
use crate::definition::{diagnostic, from_schedule_json, read_schedule};
use crate::time::{Span, Timestamp};

pub(super) fn spec(document: &str) -> Spec {
    let document = format!("workflow: report\n{document}\n");
    match read_schedule(&document) {
        Ok((_, spec)) => spec,
        Err(findings) => panic!("{}", diagnostic::render("schedule", &document, &findings)),
    }
}

pub(super) fn at(text: &str) -> Timestamp {
    Timestamp::from_utc(chrono::DateTime::parse_from_rfc3339(text).unwrap().to_utc())
}

fn next(times: &Times, after: &str, n: usize) -> Vec<String> {
    times
        .between(at(after), Timestamp::MAX)
        .take(n)
        .map(super::spec::rfc3339)
        .collect()
}

#[track_caller]
fn check(document: &str, after: &str, expected: &[&str]) {
    assert_eq!(
        next(&spec(document).times, after, expected.len().max(1)),
        expected,
        "{document}"
    );
}

#[test]
fn cron_strings_follow_vixie() {
    let from = "2026-11-26T00:00:00Z"; // A Thursday.
    check(
        r#"cron: "0 3 * * *""#,
        from,
        &["2026-11-26T03:00:00Z", "2026-11-27T03:00:00Z"],
    );
    for sunday in ["0", "7", "SUN", "sun"] {
        check(
            &format!("cron: '0 3 * * {sunday}'"),
            from,
            &["2026-11-29T03:00:00Z", "2026-12-06T03:00:00Z"],
        );
    }
    check("cron: '0 3 * * 1'", from, &["2026-11-30T03:00:00Z"]);
    check("cron: '0 3 * * 6'", from, &["2026-11-28T03:00:00Z"]);
    check(
        "cron: '0 3 * * 1-5'",
        from,
        &["2026-11-26T03:00:00Z", "2026-11-27T03:00:00Z", "2026-11-30T03:00:00Z"],
    );
    check(
        "cron: '0 3 * * 5-7'",
        from,
        &["2026-11-27T03:00:00Z", "2026-11-28T03:00:00Z", "2026-11-29T03:00:00Z"],
    );
    // Either day suffices where both are restricted.
    check(
        "cron: '0 3 1 * MON'",
        from,
        &["2026-11-30T03:00:00Z", "2026-12-01T03:00:00Z", "2026-12-07T03:00:00Z"],
    );
    // Both have to fit where one begins with a star.
    check(
        "cron: '0 3 */2 * MON'",
        from,
        &["2026-12-07T03:00:00Z", "2026-12-21T03:00:00Z"],
    );
    check("cron: '0 3 1 * ?'", from, &["2026-12-01T03:00:00Z"]);
    check(
        "cron: '*/20 30 3 * * *'",
        from,
        &["2026-11-26T03:30:00Z", "2026-11-26T03:30:20Z", "2026-11-26T03:30:40Z"],
    );
    check(
        "cron: '0 0 0 1 1 ? 2028,2030'",
        from,
        &["2028-01-01T00:00:00Z", "2030-01-01T00:00:00Z"],
    );
    assert_eq!(
        next(&spec("cron: '0 0 0 1 1 ? 2028'").times, "2028-01-01T00:00:00Z", 1),
        [""; 0]
    );
    for (name, then) in [
        ("yearly", "2027-01-01T00:00:00Z"),
        ("annually", "2027-01-01T00:00:00Z"),
        ("monthly", "2026-12-01T00:00:00Z"),
        ("weekly", "2026-11-29T00:00:00Z"),
        ("daily", "2026-11-27T00:00:00Z"),
        ("midnight", "2026-11-27T00:00:00Z"),
        ("hourly", "2026-11-26T01:00:00Z"),
    ] {
        check(&format!("cron: '@{name}'"), from, &[then]);
    }
    check(
        "cron: [ '0 5 * * *', '0 4 * * *' ]",
        from,
        &["2026-11-26T04:00:00Z", "2026-11-26T05:00:00Z"],
    );
    check("cron: '0 0 29 2 1'", "2026-03-31T00:00:00Z", &["2027-02-01T00:00:00Z"]);
    check(
        "calendars: { day_of_month: 29, month: 2, day_of_week: MON }",
        from,
        &["2044-02-29T00:00:00Z"],
    );
}

#[test]
fn calendars_are_and_and_intervals_have_a_phase() {
    let from = "2026-11-26T00:00:00Z";
    check(
        "calendars: { hour: 9-17/4, day_of_week: MON-FRI, minute: 30 }",
        from,
        &[
            "2026-11-26T09:30:00Z",
            "2026-11-26T13:30:00Z",
            "2026-11-26T17:30:00Z",
            "2026-11-27T09:30:00Z",
        ],
    );
    check(
        "calendars: { day_of_month: 13, day_of_week: 5 }",
        from,
        &["2027-08-13T00:00:00Z"],
    );
    check("every: 90m", from, &["2026-11-26T01:30:00Z", "2026-11-26T03:00:00Z"]);
    check(
        "every: { every: 1h, phase: 5m }",
        from,
        &["2026-11-26T00:05:00Z", "2026-11-26T01:05:00Z"],
    );
    check("every: { every: 1h, phase: 0s }", from, &["2026-11-26T01:00:00Z"]);
    check("every: 1s", "2026-11-26T00:00:00.999999Z", &["2026-11-26T00:00:01Z"]);
    check("every: 1s", "2026-11-26T00:00:01Z", &["2026-11-26T00:00:02Z"]);
}

#[test]
fn what_is_excluded_and_outside_of_the_bounds_does_not_occur() {
    let from = "2026-12-23T12:00:00Z";
    check(
        "cron: '0 9 * * *'\nexclude: [ { month: DEC, day_of_month: 24-26 }, { day_of_week: SUN } ]",
        from,
        &["2026-12-28T09:00:00Z", "2026-12-29T09:00:00Z"],
    );
    check(
        "cron: '0 * * * *'\nexclude: { hour: 0-22 }",
        from,
        &["2026-12-23T23:00:00Z", "2026-12-24T23:00:00Z"],
    );
    check(
        "every: 1s\nexclude: { second: 0-58 }",
        from,
        &["2026-12-23T12:00:59Z", "2026-12-23T12:01:59Z"],
    );
    // What is excluded is of the zone's days as well.
    check(
        "cron: '30 23 * * *'\nzone: America/New_York\nexclude: { day_of_month: 24 }",
        from,
        &["2026-12-24T04:30:00Z", "2026-12-26T04:30:00Z"],
    );
    check(
        "every: 1h\nstart_at: '2026-12-24T10:00:00Z'\nend_at: '2026-12-24T11:00:00Z'",
        from,
        &["2026-12-24T10:00:00Z", "2026-12-24T11:00:00Z"],
    );
    let bounded = spec("every: 1h\nstart_at: '2026-12-24T10:00:00Z'\nend_at: '2026-12-24T11:00:00Z'");
    assert_eq!(bounded.times.next_after(at("2026-12-24T11:00:00Z")), None);
    check(
        "every: 1h\nstart_at: '2026-12-24T10:00:00.5Z'",
        from,
        &["2026-12-24T11:00:00Z"],
    );
}

#[test]
fn a_gap_shifts_or_skips_and_an_hour_that_comes_twice_is_meant_once() {
    // Berlin, 2026: forward on 29 March at 01:00Z, back on 25 October at 01:00Z.
    let fixed = "cron: '30 2 * * *'\nzone: Europe/Berlin";
    let spring = "2026-03-28T12:00:00Z";
    check(fixed, spring, &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
    check(
        &format!("{fixed}\ndst: {{ gap: skip }}"),
        spring,
        &["2026-03-30T00:30:00Z"],
    );
    let autumn = "2026-10-24T12:00:00Z";
    check(fixed, autumn, &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    check(
        &format!("{fixed}\ndst: {{ overlap: both }}"),
        autumn,
        &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"],
    );
    // From within either hour.
    check(fixed, "2026-10-25T00:30:00Z", &["2026-10-26T01:30:00Z"]);
    check(fixed, "2026-10-25T01:10:00Z", &["2026-10-26T01:30:00Z"]);
    // Meant for every hour: in order, each once.
    check(
        "cron: '*/30 * * * *'\nzone: Europe/Berlin",
        "2026-10-24T23:59:59Z",
        &[
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T01:30:00Z",
            "2026-10-25T02:00:00Z",
        ],
    );
    check(
        "cron: '*/30 * * * *'\nzone: Europe/Berlin\ndst: { overlap: first }",
        "2026-10-24T23:59:59Z",
        &["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z"],
    );
    // Everything in the gap is one moment, and that of the hour behind it.
    check(
        "cron: '*/20 2,3 * * *'\nzone: Europe/Berlin",
        "2026-03-29T00:00:00Z",
        &["2026-03-29T01:00:00Z", "2026-03-29T01:20:00Z"],
    );
    // A day that is missing altogether (Samoa, 30 December 2011).
    check(
        "cron: '0 12 * * *'\nzone: Pacific/Apia",
        "2011-12-29T22:00:00Z",
        &["2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"],
    );
}

#[test]
fn jitter_is_a_function_of_schedule_and_nominal_time() {
    let spec = spec("every: 1m\njitter: 30s");
    let nominal = at("2026-11-26T00:01:00Z");
    let fires = spec.times.fires_at("nightly", nominal);
    assert_eq!(fires, spec.times.fires_at("nightly", nominal));
    assert_ne!(fires, spec.times.fires_at("daily", nominal));
    assert!(fires >= nominal && fires < nominal.plus(Span::from_secs(30)));
    // It never reaches the next nominal time, so that what fires is in order.
    let wide = self::spec("every: 1s\njitter: 1h");
    for nominal in wide
        .times
        .between(at("2026-11-26T00:00:00Z"), at("2026-11-26T00:05:00Z"))
    {
        let fires = wide.times.fires_at("x", nominal);
        assert!(fires >= nominal && fires < nominal.plus(Span::from_secs(1)));
    }
    // Without any, it is on time.
    assert_eq!(self::spec("every: 1m").times.fires_at("x", nominal), nominal);
}

#[test]
fn calendars_that_cannot_be_end() {
    for never in [
        "cron: '0 0 31 2 *'",
        "cron: '0 0 0 30 2 ? 2026-2099'",
        "every: 1h\nstart_at: '2027-01-02T00:00:00Z'\nend_at: '2027-01-01T00:00:00Z'",
        "every: 1m\nexclude: {}",
        "cron: '0 3 * * *'\nexclude: { hour: 3 }",
        "every: 1s\nexclude: [ { minute: 0-29 }, { minute: 30-59 } ]",
    ] {
        let document = format!("workflow: report\n{never}\n");
        let findings = read_schedule(&document).unwrap_err();
        assert_eq!(findings.len(), 1, "{never}");
        assert_eq!(findings[0].code, super::code::NEVER_DUE, "{never}");
    }
}

#[test]
fn the_canonical_form_says_the_same_and_keeps_itself() {
    let written = "schedule: nightly\nworkflow: report\nversion: 3\ncron: '0 3 * * *'\nevery: [ 1h, { every: 2h, phase: 5m } ]\n\
        calendars: { hour: 9, day_of_week: MON-FRI }\nexclude: { month: 12 }\nzone: europe/berlin\n\
        start_at: '2026-01-01T00:00:00+01:00'\nend_at: '2030-01-01T00:00:00Z'\njitter: 30s\ndst: { gap: skip, overlap: both }\n\
        input: { day: '${ schedule.nominal_time }', n: 1 }\noverlap: buffer_all\ncatch_up_window: 1h\npause_on_failure: true\n\
        note: the report\nactions: 5\npaused: true\n";
    let (id, spec) = read_schedule(written).unwrap();
    assert_eq!(id.as_deref(), Some("nightly"));
    assert_eq!(spec.policy.overlap, Overlap::BufferAll);
    let again = from_schedule_json(spec.json()).unwrap();
    assert_eq!(again, spec);
    assert_eq!(again.json().to_string(), spec.json().to_string());
    insta::assert_snapshot!("canonical", spec.json());
    let stored: Spec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
    assert_eq!(stored, spec);
    let nominal = at("2026-11-26T02:00:00Z");
    assert_eq!(
        spec.input("nightly", nominal).unwrap().to_string(),
        r#"{"day":"2026-11-26T02:00:00Z","n":1}"#
    );
    assert_eq!(super::spec::compact(nominal), "20261126T020000Z");
}

/// SEMANTICS §4, by their exact values.
#[test]
fn the_defaults_are_those_of_the_field() {
    let said_nothing = spec("every: 1h");
    assert_eq!(said_nothing.policy.overlap, Overlap::Skip);
    assert_eq!(said_nothing.policy.catch_up_window, Span::from_secs(31_536_000));
    assert!(!said_nothing.policy.pause_on_failure && !said_nothing.paused);
    assert_eq!((said_nothing.actions, said_nothing.note.is_none()), (None, true));
    let times = &said_nothing.times;
    assert_eq!(
        (&**times.zone.name(), times.jitter, times.gap, times.fold),
        ("UTC", Span::ZERO, super::times::Gap::Shift, None)
    );
    assert_eq!((times.start_at, times.end_at, times.exclude.len()), (None, None, 0));
    assert_eq!(
        (said_nothing.action.version, said_nothing.action.input.is_none()),
        (None, true)
    );
    assert_eq!(
        spec("every: 1h\ncatch_up_window: 10s").policy.catch_up_window,
        Span::from_secs(10)
    );
    let refused = read_schedule("workflow: report\nevery: 1h\ncatch_up_window: 9s\n").unwrap_err();
    assert!(refused[0].message.contains("at least 10s"), "{refused:?}");
    // A gap shifts, an hour that comes twice is meant once, and what every hour is meant is meant each time.
    let in_berlin =
        |rule: &str, after: &str, n: usize| next(&spec(&format!("{rule}\nzone: Europe/Berlin")).times, after, n);
    let gap = in_berlin("cron: '30 2 * * *'", "2026-03-28T12:00:00Z", 1);
    assert_eq!(gap, ["2026-03-29T01:00:00Z"]);
    let twice = in_berlin("cron: '30 2 * * *'", "2026-10-24T12:00:00Z", 2);
    assert_eq!(twice, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    let hourly = in_berlin("cron: '30 * * * *'", "2026-10-25T00:00:00Z", 3);
    assert_eq!(
        hourly,
        ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
    );
}

#[test]
fn overlap_policies_have_the_names_of_the_field() {
    let names = [
        "skip",
        "buffer_one",
        "buffer_all",
        "cancel_other",
        "terminate_other",
        "allow_all",
    ];
    assert_eq!(Overlap::ALL.map(Overlap::as_str), names);
    for (name, overlap) in names.into_iter().zip(Overlap::ALL) {
        assert_eq!(spec(&format!("every: 1h\noverlap: {name}")).policy.overlap, overlap);
        assert_eq!(serde_json::to_value(overlap).unwrap(), name, "as it is stored");
    }
}

/// As in Vixie cron, a wildcard is what begins with a star, and no list or range of all hours.
#[test]
fn hours_that_begin_with_a_star_are_meant_whenever_they_come() {
    // Berlin, 25 October 2026: 02:00 comes at 00:00Z and at 01:00Z.
    for (rule, twice) in [
        ("cron: '30 * * * *'", true),
        ("cron: '30 */2 * * *'", true),
        ("cron: '0 30 * * * *'", true),
        ("cron: '0 30 * * * ? 2026'", true),
        ("calendars: { hour: '*', minute: 30 }", true),
        ("calendars: { hour: '*/2', minute: 30 }", true),
        ("cron: '30 0-23 * * *'", false),
        ("cron: '30 0-23/2 * * *'", false),
        ("cron: '30 2 * * *'", false),
        ("calendars: { hour: 0-23, minute: 30 }", false),
        ("calendars: { hour: 2, minute: 30 }", false),
    ] {
        let times = spec(&format!("{rule}\nzone: Europe/Berlin")).times;
        let until = at("2026-10-25T01:59:00Z");
        let within: Vec<_> = times.between(at("2026-10-24T23:59:00Z"), until).collect();
        let [first, second] = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"].map(at);
        let expected = if twice { vec![first, second] } else { vec![first] };
        assert_eq!(within, expected, "{rule}");
    }
}

#[test]
fn a_cron_string_has_five_to_seven_fields() {
    for text in ["0 3 * * *", "0 0 3 * * *", "0 0 3 * * * 2027"] {
        spec(&format!("cron: '{text}'"));
    }
    for text in ["* * * *", "0 0 3 * * * 2027 *"] {
        let document = format!("workflow: report\ncron: '{text}'\n");
        let findings = read_schedule(&document).unwrap_err();
        let n = text.split(' ').count();
        assert_eq!((findings.len(), findings[0].code), (1, super::code::CRON));
        assert!(findings[0].message.ends_with(&format!("not {n}")), "{findings:?}");
    }
}

/// A calendar's fields that are not named: midnight, on every day.
#[test]
fn what_a_calendar_does_not_name_is_midnight_and_any_day() {
    let from = "2026-11-26T00:00:00Z";
    check("calendars: {}", from, &["2026-11-27T00:00:00Z", "2026-11-28T00:00:00Z"]);
    check("calendars: { hour: 3 }", from, &["2026-11-26T03:00:00Z"]);
    check("calendars: { minute: 5 }", from, &["2026-11-26T00:05:00Z"]);
    check(
        "calendars: { month: 2 }",
        from,
        &["2027-02-01T00:00:00Z", "2027-02-02T00:00:00Z"],
    );
    check("calendars: { year: 2028 }", from, &["2028-01-01T00:00:00Z"]);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let document = "cron: [ '0 25 * * *', '1 2 3', 5, 'TZ=UTC 0 0 * * *', '@reboot', '@fortnightly' ]\nevery: [ 500ms, 400d, { phase: 1s } ]\n\
        calendars: { hour: nine, weekday: 1 }\nzone: Europe/Berlim\nstart_at: tomorrow\njitter: 2d\ndst: { gap: leap }\n\
        input: { a: '${ input.x }', b: '${ schedule.tomorrow }' }\noverlap: queue\ncatch_up_window: 9s\nactions: 0\n";
    let findings = read_schedule(document).unwrap_err();
    insta::assert_snapshot!("findings", diagnostic::render("nightly.yaml", document, &findings));
}
