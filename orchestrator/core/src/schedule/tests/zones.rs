//! Around every change of the clocks, in every zone, from 1990 to 2037.

use std::collections::BTreeSet;

use super::{at, spec};
use crate::schedule::zone::{Zone, names};
use crate::time::Timestamp;

const FROM: i64 = 631_152_000;
const UNTIL: i64 = 2_145_916_800;

/// Zones that differ from 1990 on, each with its changes.
fn zones() -> Vec<(String, Vec<i64>)> {
    let mut seen = BTreeSet::new();
    let mut zones = Vec::new();
    for name in names() {
        let zone = Zone::get(&name).unwrap();
        let mut changes = Vec::new();
        let mut at = FROM;
        loop {
            let stretch = zone.stretch(at);
            changes.push((stretch.start, stretch.offset));
            if stretch.end >= UNTIL {
                break;
            }
            at = stretch.end;
        }
        if seen.insert(changes.clone()) {
            zones.push((name, changes.into_iter().skip(1).map(|(start, _)| start).collect()));
        }
    }
    zones
}

#[test]
fn occurrences_increase_and_are_the_same_after_a_restart_at_any_instant() {
    let rules = [
        "cron: '*/30 * * * *'",
        "cron: '30 2 * * *'",
        "cron: '15,45 0-3 * * *'",
        "cron: '0 0 * * *'\ndst: { gap: skip, overlap: both }",
        "cron: '*/20 1-2 * * *'\ndst: { overlap: both }",
        "cron: '10 * * * *'\ndst: { gap: skip, overlap: first }",
        "calendars: [ { hour: 1 }, { hour: 2, minute: 30 } ]\nevery: 2h",
    ];
    let zones = zones();
    assert!(zones.len() > 200, "{}", zones.len());
    let mut changes_seen = 0;
    for (zone_at, (zone, changes)) in zones.iter().enumerate() {
        let specs: Vec<_> = rules
            .iter()
            .map(|rule| spec(&format!("{rule}\nzone: {zone}")))
            .collect();
        for (change_at, change) in changes.iter().enumerate() {
            changes_seen += 1;
            // Each change with one of the rules, and each zone with all of them.
            let rule = (zone_at + change_at) % rules.len();
            let times = &specs[rule].times;
            let (low, high) = (change - 3 * 3_600, change + 3 * 3_600);
            let moment = |second: i64| Timestamp(second * 1_000_000);
            let all: Vec<Timestamp> = times.between(moment(low), moment(high)).collect();
            assert!(
                all.windows(2).all(|pair| pair[0] < pair[1]),
                "{zone} {change} {}",
                rules[rule]
            );
            assert!(all.iter().all(|at| *at > moment(low)), "{zone} {change}");
            // Whoever asks at any instant hears of the next one, and of no other.
            let step = 40 * 60 + 7;
            for instant in (low..high).step_by(step) {
                let expected = all.iter().find(|at| **at > moment(instant)).copied();
                let found = times.next_after(moment(instant)).filter(|at| *at <= moment(high));
                assert_eq!(found, expected, "{zone} {change} {instant} {}", rules[rule]);
            }
        }
    }
    assert!(changes_seen > 5_000, "{changes_seen}");
}

#[test]
fn a_daily_time_occurs_once_a_day_in_every_zone() {
    for (zone, changes) in zones() {
        // Whole days that a zone left out or had twice are no matter of clocks.
        let Some(change) = changes.iter().rev().find(|change| **change > 1_400_000_000) else {
            continue;
        };
        let times = spec(&format!("cron: '30 2 * * *'\nzone: {zone}")).times.clone();
        let from = change - 4 * 86_400;
        let seen: Vec<i64> = times
            .between(Timestamp(from * 1_000_000), Timestamp((from + 8 * 86_400) * 1_000_000))
            .map(|at| at.0 / 1_000_000)
            .collect();
        assert!((7..=9).contains(&seen.len()), "{zone}: {seen:?}");
        for pair in seen.windows(2) {
            assert!((pair[1] - pair[0] - 86_400).abs() <= 3 * 3_600, "{zone}: {pair:?}");
        }
    }
}

/// As Vixie cron's manual says of jobs that run at certain times (they are made up for at once) and of those that run whenever the
/// minute comes (they go by the clock): a wildcard hour is never one occurrence too many, and no instant counts twice.
#[test]
fn a_gap_is_made_up_for_where_hours_are_named_and_nowhere_else() {
    // Berlin, 2026: 02:00 to 03:00 is left out at 01:00Z. Lord Howe: 02:00 to 02:30, at 15:30Z. Sao Paulo, 2018: 00:00 to 01:00, at 03:00Z.
    let (berlin, howe, paulo) = ("2026-03-29", "2026-10-03", "2018-11-04");
    for (zone, day, rule, times) in [
        ("Europe/Berlin", berlin, "30 2 * * *", &["01:00"][..]),
        ("Europe/Berlin", berlin, "15,45 2 * * *", &["01:00"]),
        ("Europe/Berlin", berlin, "30 2,3 * * *", &["01:00", "01:30"]),
        ("Europe/Berlin", berlin, "0 2,3 * * *", &["01:00"]),
        (
            "Europe/Berlin",
            berlin,
            "30 0-23 * * *",
            &["00:30", "01:00", "01:30", "02:30"],
        ),
        ("Europe/Berlin", berlin, "30 * * * *", &["00:30", "01:30", "02:30"]),
        ("Europe/Berlin", berlin, "0 * * * *", &["00:00", "01:00", "02:00"]),
        (
            "Europe/Berlin",
            berlin,
            "20,40 * * * *",
            &["00:20", "00:40", "01:20", "01:40", "02:20", "02:40"],
        ),
        ("Europe/Berlin", berlin, "30 */2 * * *", &["02:30"]),
        ("Australia/Lord_Howe", howe, "15 2 * * *", &["15:30"]),
        ("Australia/Lord_Howe", howe, "45 2 * * *", &["15:45"]),
        ("Australia/Lord_Howe", howe, "15,30 2 * * *", &["15:30"]),
        ("Australia/Lord_Howe", howe, "15,45 2 * * *", &["15:30", "15:45"]),
        ("Australia/Lord_Howe", howe, "15 * * * *", &["14:45", "16:15"]),
        (
            "Australia/Lord_Howe",
            howe,
            "30 * * * *",
            &["14:00", "15:00", "15:30", "16:30"],
        ),
        ("America/Sao_Paulo", paulo, "0 0 * * *", &["03:00"]),
        ("America/Sao_Paulo", paulo, "@daily", &["03:00"]),
        ("America/Sao_Paulo", paulo, "30 0 * * *", &["03:00"]),
        ("America/Sao_Paulo", paulo, "30 0,1 * * *", &["03:00", "03:30"]),
        ("America/Sao_Paulo", paulo, "30 * * * *", &["02:30", "03:30", "04:30"]),
        ("America/Sao_Paulo", paulo, "0 * * * *", &["02:00", "03:00", "04:00"]),
    ] {
        let (from, until) = match day {
            day if day == berlin => ("00:00", "03:00"),
            day if day == howe => ("14:00", "17:00"),
            _ => ("02:00", "05:00"),
        };
        let instant = |time: &str| format!("{day}T{time}:00Z");
        let until = at(&instant(until));
        let after = Timestamp(at(&instant(from)).0 - 1);
        let times_of = spec(&format!("cron: '{rule}'\nzone: {zone}")).times;
        let found: Vec<_> = times_of.between(after, Timestamp(until.0 - 1)).collect();
        let expected: Vec<_> = times.iter().map(|time| at(&instant(time))).collect();
        assert_eq!(found, expected, "{zone} {rule}");
    }
}
