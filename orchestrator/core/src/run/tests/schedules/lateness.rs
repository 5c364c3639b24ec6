//! What comes late: the catch-up window, jitter, and how late an occurrence counts.

use super::*;

#[test]
fn what_is_older_than_the_catch_up_window_is_missed_and_counted() {
    let mut nightly = Actor::new("every: 10s\noverlap: allow_all\ncatch_up_window: 30s");
    nightly.wake(second(105));
    assert_eq!(nightly.schedule().counts.missed, 7, "10 to 70 are older than 30 s");
    assert_eq!(nightly.started().len(), 3, "80, 90 and 100");
    // At the window itself it is made up for.
    let mut nightly = Actor::new("every: 10s\noverlap: allow_all\ncatch_up_window: 30s");
    nightly.wake(second(40));
    assert_eq!((nightly.schedule().counts.missed, nightly.started().len()), (0, 4));
    // A year of seconds is passed in one go.
    let mut nightly = Actor::new("every: 1s\ncatch_up_window: 10s");
    nightly.wake(second(365 * 86_400));
    assert_eq!(nightly.schedule().counts.missed, 10_000);
    assert_eq!(nightly.schedule().decided_to, second(365 * 86_400));
    assert_eq!(nightly.started().len(), 1);
}

/// Without a word about it: a year, to the microsecond.
#[test]
fn what_is_a_year_late_is_made_up_for_and_a_microsecond_more_is_not() {
    const YEAR_US: i64 = 365 * 86_400 * SECOND;
    for (more, missed) in [(0, 0), (1, 1)] {
        let mut nightly = Actor::new("every: 30d\noverlap: allow_all");
        let first = nightly.schedule().next.unwrap().at;
        nightly.wake(Timestamp(first.0 + YEAR_US + more));
        let counts = nightly.schedule().counts;
        assert_eq!((counts.missed, counts.started), (missed, 13 - missed));
    }
}

#[test]
fn what_waits_for_its_jitter_is_not_late() {
    let mut nightly = Actor::new("every: 1h\njitter: 30m\noverlap: allow_all\ncatch_up_window: 10s");
    let mut late = 0;
    for _ in 0..24 {
        let next = nightly.schedule().next.unwrap();
        late += usize::from(next.at.since(next.nominal) > Span::from_secs(10));
        nightly.wake(next.at);
    }
    let counts = nightly.schedule().counts;
    assert!(late > 0);
    assert_eq!((counts.missed, counts.started), (0, 24));
}

#[test]
fn how_late_an_occurrence_is_counts_from_when_it_is_to_fire() {
    let document = "every: 1h\njitter: 59m\noverlap: allow_all\ncatch_up_window: 30m";
    let times = Arc::clone(&spec(document).times);
    let nominal = times.between(second(0), second(24 * 3_600));
    let fires: Vec<Timestamp> = nominal.map(|nominal| times.fires_at("nightly", nominal)).collect();
    assert_eq!(fires.len(), 24);
    let window = Span::from_secs(30 * 60);
    for at in &fires[..20] {
        for now in [at.plus(window), Timestamp(at.plus(window).0 + 1)] {
            let mut nightly = Actor::new(document);
            nightly.wake(now);
            let missed = fires.iter().filter(|at| now.since(**at) > window).count();
            let due = fires.iter().filter(|at| **at <= now).count();
            let counts = nightly.schedule().counts;
            let started = due - missed;
            assert_eq!((counts.missed, counts.started), (missed as u64, started as u64));
        }
    }
}
