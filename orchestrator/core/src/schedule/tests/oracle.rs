//! Cron strings against `croner`, another implementation of the same rules.

use chrono::{DateTime, Utc};
use croner::parser::{CronParser, Seconds};
use proptest::prelude::*;

use super::spec;
use crate::time::Timestamp;

fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        3 => (low..=high).prop_map(|n| n.to_string()),
        2 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (2_u32..=5).prop_map(|step| format!("*/{step}")),
        1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{},{}", a.min(b), a.max(b))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn cron_strings_of_five_and_six_fields_agree(
        minute in field(0, 59),
        hour in field(0, 23),
        day in field(1, 31),
        month in field(1, 12),
        weekday in field(0, 6),
        second in proptest::option::of(0_u32..60),
        from in 1_000_000_000_i64..2_000_000_000,
    ) {
        // A stepped star counts as a restriction there, and as a star for Vixie.
        prop_assume!((!day.starts_with("*/") || weekday == "*") && (!weekday.starts_with("*/") || day == "*"));
        let text = match second {
            Some(second) => format!("{second} {minute} {hour} {day} {month} {weekday}"),
            None => format!("{minute} {hour} {day} {month} {weekday}"),
        };
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let oracle = parser.parse(&text).unwrap();
        let document = format!("workflow: w\ncron: '{text}'\n");
        let Ok((_, ours)) = crate::definition::read_schedule(&document) else {
            // Never due: the 31st of February.
            let start = DateTime::<Utc>::from_timestamp(0, 0).unwrap();
            prop_assert!(oracle.find_next_occurrence(&start, false).is_err(), "{}", text);
            return Ok(());
        };
        let mut theirs = DateTime::<Utc>::from_timestamp(from, 0).unwrap();
        let mut mine = Timestamp(from * 1_000_000);
        for _ in 0..4 {
            theirs = oracle.find_next_occurrence(&theirs, false).unwrap();
            mine = ours.times.next_after(mine).unwrap();
            prop_assert_eq!(mine.to_utc(), theirs, "{}", text);
        }
    }
}

#[test]
fn weekdays_by_name_and_the_seventh_agree() {
    for text in [
        "0 3 * * MON-FRI",
        "0 3 * * 7",
        "0 3 * * 0",
        "15 4 * * SUN,WED",
        "0 0 13 * FRI",
    ] {
        let oracle = CronParser::new().parse(text).unwrap();
        let ours = spec(&format!("cron: '{text}'"));
        let mut theirs = DateTime::<Utc>::from_timestamp(1_800_000_000, 0).unwrap();
        let mut mine = Timestamp(1_800_000_000_000_000);
        for _ in 0..20 {
            theirs = oracle.find_next_occurrence(&theirs, false).unwrap();
            mine = ours.times.next_after(mine).unwrap();
            assert_eq!(mine.to_utc(), theirs, "{text}");
        }
    }
}
