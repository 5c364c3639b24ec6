//! The codes of findings in triggers: one table of code, cause and remedy, and a page of help for each in `code/`. Codes are
//! stable and never used twice.

use crate::definition::code::Code;

macro_rules! codes {
    ($($name:ident = $code:literal, $cause:literal, $remedy:literal;)*) => {
        $(pub const $name: Code = Code { code: $code, cause: $cause, remedy: $remedy };)*
        /// Every code, in order.
        pub const ALL: &[Code] = &[$($name),*];

        /// Help for one code: what it means, a definition that has it, and that definition mended. Definitions are indented by
        /// four spaces.
        pub fn page(code: &str) -> Option<&'static str> {
            match code {
                $($code => Some(include_str!(concat!("code/", $code, ".md"))),)*
                _ => None,
            }
        }
    };
}

codes! {
    OWN_SUBJECT = "KN0197", "A trigger reads what Knarr itself publishes, or what belongs to the NATS server.", "Name a stream and a subject of your own, like `orders.>`.";
    BAD_SOURCE = "KN0198", "A trigger names a stream or a subject that cannot be one.", "Write a subject like `orders.*.placed`, and a stream's name without dots, wildcards and white space.";
    NOT_KEPT = "KN0199", "A trigger listens to a subject that no stream keeps for it, so that it hears nothing while no replica listens.", "Name the `stream` that keeps the subject, if each message is to count.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::code::examples;
    use crate::definition::diagnostic;

    #[test]
    fn every_code_has_a_page_whose_example_has_it_and_whose_remedy_has_nothing() {
        assert!(ALL.windows(2).all(|pair| pair[0].code < pair[1].code));
        let no_files = |path: &str| Err(format!("there is no {path}"));
        for code in ALL {
            let page = page(code.code).unwrap();
            assert!(page.lines().all(|line| line.chars().count() <= 90), "{}", code.code);
            let examples = examples(page);
            let [wrong, right] = examples.as_slice() else {
                panic!("{} has {} examples", code.code, examples.len());
            };
            let found = match crate::definition::read(wrong, &no_files) {
                Ok(checked) => checked.findings,
                Err(findings) => findings,
            };
            let rendered = diagnostic::render(code.code, wrong, &found);
            assert!(!found.is_empty(), "{} is not triggered by\n{wrong}", code.code);
            assert!(
                found.iter().all(|finding| finding.code == *code),
                "{}\n{rendered}",
                code.code
            );
            match crate::definition::read(right, &no_files) {
                Ok(checked) => assert_eq!(checked.findings, [], "{}", code.code),
                Err(findings) => panic!("{}", diagnostic::render(code.code, right, &findings)),
            }
        }
        assert_eq!(super::page("KN0000"), None);
    }
}
