//! Operators of other languages, and what they are called here. Only what could not be read is looked at.

use super::ExpressionError;

/// The longer ones first.
const OPERATORS: &[(&str, &str)] = &[
    ("===", "write `==`"),
    ("!==", "write `!=`"),
    ("==", ""),
    ("!=", ""),
    ("<=", ""),
    (">=", ""),
    ("&&", "write `and`"),
    ("||", "write `or`"),
    ("??", "write `| default(…)`"),
    ("?.", "write `.`, and `| default(…)` behind it"),
    ("?", "write `value if condition else other`"),
    ("!", "write `not`"),
    ("=>", "expressions have no functions of their own"),
    ("=", "write `==`"),
];

/// The first one, with what to write instead of it.
pub(super) fn operator(source: &str) -> Option<ExpressionError> {
    if source.starts_with('{') && source.ends_with('}') && !source.contains(':') {
        let error = ExpressionError::new(source, "one pair of braces is enough");
        return Some(ExpressionError {
            remedy: Some(format!("write `${{ {} }}`", source[1..source.len() - 1].trim())),
            ..error.at(0..source.len())
        });
    }
    let mut quote = None;
    let mut depth = 0_u32;
    let mut at = 0;
    while let Some(c) = source[at..].chars().next() {
        let next = at + c.len_utf8();
        match (quote, c) {
            (Some(_), '\\') => {
                at = next + source[next..].chars().next().map_or(0, char::len_utf8);
                continue;
            }
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, _) => {
                if let Some((operator, remedy)) = OPERATORS.iter().find(|(it, _)| source[at..].starts_with(it)) {
                    // A filter's arguments have names: `map(attribute='id')`.
                    let is_argument = *operator == "=" && depth > 0;
                    if !remedy.is_empty() && !is_argument {
                        let error = ExpressionError::new(source, format!("there are no expressions with `{operator}`"));
                        return Some(ExpressionError {
                            remedy: Some((*remedy).to_owned()),
                            ..error.at(at..at + operator.len())
                        });
                    }
                    at += operator.len();
                    continue;
                }
            }
        }
        at = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::expression::Expression;

    #[test]
    fn operators_of_other_languages_are_told_from_ours() {
        for (source, operator, remedy) in [
            ("input.a && input.b", "&&", "write `and`"),
            ("input.a || input.b", "||", "write `or`"),
            ("!input.a", "!", "write `not`"),
            ("input.a ? 1 : 2", "?", "write `value if condition else other`"),
            ("input.a ?? 1", "??", "write `| default(…)`"),
            ("input.a === 1", "===", "write `==`"),
            ("input.a = 3", "=", "write `==`"),
            ("'a && b' == input.a && input.b", "&&", "write `and`"),
            ("{ input.a }", "{ input.a }", "write `${ input.a }`"),
        ] {
            let error = Expression::compile(source).unwrap_err();
            let found = error.range.clone().map(|range| &source[range]);
            assert_eq!(
                (found, error.remedy.as_deref()),
                (Some(operator), Some(remedy)),
                "{source}: {error}"
            );
        }
        let error = Expression::compile("input.a # 1").unwrap_err();
        assert!(!error.message.contains("more than"), "{error}");
        for fine in [
            "input.a | map(attribute='id') | list",
            "input.a != 1 and 'x=y' == input.b",
        ] {
            Expression::compile(fine).unwrap();
        }
    }

    #[test]
    fn a_filter_that_is_called_is_told_to_be_one() {
        let remedy = |source| Expression::compile(source).unwrap_err().remedy;
        assert_eq!(
            remedy("lenght(input.a)").as_deref(),
            Some("`length` is a filter: `value | length`")
        );
        assert_eq!(
            remedy("now()").as_deref(),
            Some("`knarr explain KN0121` lists every function")
        );
        assert_eq!(remedy("input.a | lenght"), None, "there is a suggestion");
    }
}
