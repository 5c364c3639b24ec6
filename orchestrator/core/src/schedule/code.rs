//! The codes of findings in schedules: one table of code, cause and remedy, and a page of help for each in `code/`, whose
//! examples are documents of schedules. Codes are stable and never used twice.

use crate::definition::code::Code;

macro_rules! codes {
    ($($name:ident = $code:literal, $cause:literal, $remedy:literal;)*) => {
        $(pub const $name: Code = Code { code: $code, cause: $cause, remedy: $remedy };)*
        /// Every code, in order.
        pub const ALL: &[Code] = &[$($name),*];

        /// Help for one code: what it means, a schedule that has it, and that schedule mended. Schedules are indented by four
        /// spaces.
        pub fn page(code: &str) -> Option<&'static str> {
            match code {
                $($code => Some(include_str!(concat!("code/", $code, ".md"))),)*
                _ => None,
            }
        }
    };
}

codes! {
    CRON = "KN0190", "A cron string cannot be read.", "Write five fields (minute hour day month weekday), six with the second first, or seven with the year last.";
    CALENDAR = "KN0191", "A field of a calendar cannot be read.", "Write a number, a range like 9-17, a step like */15, or a list of these.";
    INTERVAL = "KN0192", "An interval is not one that a schedule can keep.", "Write whole seconds, up to 366 days, and a phase shorter than that.";
    NO_TIMES = "KN0193", "A schedule names no times.", "Give it `cron`, `every` or `calendars`.";
    ZONE = "KN0194", "There is no such time zone.", "Use a name of the IANA database, like Europe/Berlin.";
    MOMENT = "KN0195", "A point in time cannot be read.", "Write it with its zone, like 2027-01-31T09:00:00+01:00.";
    NEVER_DUE = "KN0196", "A schedule never comes due.", "Correct its calendars, what they exclude, or `start_at` and `end_at`.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::code::examples;
    use crate::definition::{diagnostic, read_schedule};

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(ALL.windows(2).all(|pair| pair[0].code < pair[1].code));
        assert!(ALL.iter().all(|code| code.code.starts_with("KN019")));
    }

    #[test]
    fn every_code_has_a_page_whose_example_has_it_and_whose_remedy_has_nothing() {
        for code in ALL {
            let page = page(code.code).unwrap();
            assert!(page.lines().all(|line| line.chars().count() <= 90), "{}", code.code);
            let examples = examples(page);
            let [wrong, right] = examples.as_slice() else {
                panic!("{} has {} examples", code.code, examples.len());
            };
            let found = read_schedule(wrong).unwrap_err();
            let rendered = diagnostic::render(code.code, wrong, &found);
            assert!(
                found.iter().all(|finding| finding.code == *code),
                "{}\n{rendered}",
                code.code
            );
            if let Err(findings) = read_schedule(right) {
                panic!("{}", diagnostic::render(code.code, right, &findings));
            }
        }
        assert_eq!(super::page("KN0000"), None);
    }
}
