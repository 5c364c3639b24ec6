//! JSON from outside: parsed under limits, and free of what PostgreSQL would refuse later.
//!
//! **Invariant:** a value that [`parse`] returned or [`check`] passed is UTF-8 without NUL, at most [`MAX_DEPTH`] levels deep,
//! and holds only numbers of 64 bits: everything that walks or stores it may rely on that.

use serde_json::Value;

/// Deepest nesting of arrays and objects; `[]` has depth 1.
pub const MAX_DEPTH: usize = 64;

/// What a document may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub bytes: usize,
    pub depth: usize,
}

impl Default for Limits {
    /// The largest body that may be taken at all (2 MiB).
    fn default() -> Self {
        Self {
            bytes: 2 * 1024 * 1024,
            depth: MAX_DEPTH,
        }
    }
}

/// Which rule bytes break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadJsonKind {
    /// Not JSON, or nested too deeply.
    Syntax,
    /// More bytes than are allowed.
    Size,
    /// A string holds the escape of the NUL character.
    Nul,
    /// A number that does not fit into 64 bits.
    Number,
}

/// Why bytes are not JSON that can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause} at line {line}, column {column}")]
pub struct BadJson {
    pub kind: BadJsonKind,
    /// One sentence fragment, lower case.
    pub cause: String,
    pub offset: usize,
    /// Counted from 1.
    pub line: usize,
    /// In bytes, counted from 1.
    pub column: usize,
}

impl BadJson {
    fn at(kind: BadJsonKind, bytes: &[u8], offset: usize, cause: impl Into<String>) -> Self {
        let before = &bytes[..offset.min(bytes.len())];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        Self {
            kind,
            cause: cause.into(),
            offset,
            line: 1 + before.iter().filter(|b| **b == b'\n').count(),
            column: 1 + before.len() - line_start,
        }
    }
}

/// Of a value beside its text: itself, and its place in an array or with its name in an object.
const OF_A_VALUE: usize = 104;

/// How many bytes JSON takes up together with what it is parsed into, at most; of one look at each byte. What commas stand in
/// texts counts as well.
pub fn weight(bytes: &[u8]) -> usize {
    let values = bytes.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    2 * bytes.len() + OF_A_VALUE * (values + 1)
}

/// How many bytes a value has as JSON.
pub fn length(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // A value always serialises, and a count takes everything.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// Parses a body. Never panics, and never recurses deeper than `limits.depth`.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Value, BadJson> {
    if bytes.len() > limits.bytes {
        let cause = format!("the body has {} bytes; the limit is {}", bytes.len(), limits.bytes);
        return Err(BadJson::at(BadJsonKind::Size, bytes, limits.bytes, cause));
    }
    scan(bytes, limits.depth.min(MAX_DEPTH))?;
    serde_json::from_slice(bytes).map_err(|error| {
        let offset = offset_of(bytes, error.line(), error.column());
        let text = error.to_string();
        // The position is given beside the cause.
        let cause = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
        let kind = match cause {
            "number out of range" => BadJsonKind::Number,
            _ => BadJsonKind::Syntax,
        };
        BadJson::at(kind, bytes, offset, cause)
    })
}

/// Where the number that begins at `at` ends, if it is one that can be kept. The parser would round an integer of more than
/// 64 bits: an account number would become another one.
fn number_end(bytes: &[u8], at: usize) -> Result<usize, BadJson> {
    let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    let length = bytes[at..].iter().take_while(|byte| is_part(byte)).count();
    let literal = &bytes[at..at + length];
    // Shorter ones always fit.
    if length >= 19
        && let Ok(text) = std::str::from_utf8(literal)
        && !text.contains(['.', 'e', 'E'])
        && text.parse::<i64>().is_err()
        && text.parse::<u64>().is_err()
    {
        let cause = "integer out of range: it does not fit into 64 bits";
        return Err(BadJson::at(BadJsonKind::Number, bytes, at, cause));
    }
    Ok(at + length)
}

/// Depth, NUL characters and integers, before anything is allocated. Bad syntax is left to the parser.
fn scan(bytes: &[u8], max_depth: usize) -> Result<(), BadJson> {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if in_string {
            match byte {
                b'"' => in_string = false,
                b'\\' => {
                    if bytes[at + 1..].starts_with(b"u0000") {
                        return Err(BadJson::at(
                            BadJsonKind::Nul,
                            bytes,
                            at,
                            "a string holds the NUL character `\\u0000`",
                        ));
                    }
                    at += 1;
                }
                _ => {}
            }
        } else {
            match byte {
                b'"' => in_string = true,
                b'[' | b'{' => {
                    depth += 1;
                    if depth > max_depth {
                        let cause = format!("nested deeper than {max_depth} levels");
                        return Err(BadJson::at(BadJsonKind::Syntax, bytes, at, cause));
                    }
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                b'-' | b'0'..=b'9' => {
                    at = number_end(bytes, at)?;
                    continue;
                }
                _ => {}
            }
        }
        at += 1;
    }
    Ok(())
}

fn offset_of(bytes: &[u8], line: usize, column: usize) -> usize {
    let mut start = 0;
    for _ in 1..line {
        match bytes[start..].iter().position(|b| *b == b'\n') {
            Some(end) => start += end + 1,
            None => break,
        }
    }
    (start + column.saturating_sub(1)).min(bytes.len())
}

/// Why a value that did not come through [`parse`] cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("a string holds the NUL character")]
    Nul,
    #[error("larger than {0} bytes")]
    TooLarge(usize),
}

/// Holds a value built in memory to the same rules; the size is counted roughly as JSON would be.
pub fn check(value: &Value, limits: &Limits) -> Result<(), BadValue> {
    let mut left = limits.bytes;
    check_nested(value, limits.depth.min(MAX_DEPTH), &mut left).map_err(|problem| match problem {
        BadValue::TooLarge(_) => BadValue::TooLarge(limits.bytes),
        other => other,
    })
}

fn check_nested(value: &Value, depth_left: usize, left: &mut usize) -> Result<(), BadValue> {
    let mut charge = |bytes: usize| {
        *left = left.checked_sub(bytes).ok_or(BadValue::TooLarge(0))?;
        Ok(())
    };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => charge(1),
        Value::String(text) => {
            charge(text.len() + 2)?;
            if text.contains('\0') {
                Err(BadValue::Nul)
            } else {
                Ok(())
            }
        }
        Value::Array(items) => {
            charge(2)?;
            let depth_left = depth_left.checked_sub(1).ok_or(BadValue::TooDeep)?;
            items.iter().try_for_each(|item| check_nested(item, depth_left, left))
        }
        Value::Object(entries) => {
            charge(2)?;
            let depth_left = depth_left.checked_sub(1).ok_or(BadValue::TooDeep)?;
            entries.iter().try_for_each(|(key, item)| {
                *left = left.checked_sub(key.len() + 3).ok_or(BadValue::TooLarge(0))?;
                if key.contains('\0') {
                    return Err(BadValue::Nul);
                }
                check_nested(item, depth_left, left)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Nothing is rounded in silence: what is written as an integer is kept as one or refused.
    #[test]
    fn integers_of_more_than_64_bits_are_refused() {
        for text in [
            "18446744073709551615",
            "-9223372036854775808",
            "9223372036854775808",
            "[0,-1,1]",
        ] {
            let value = parse(text.as_bytes(), &Limits::default()).expect(text);
            assert_eq!(value.to_string(), text);
        }
        let thirty = "9".repeat(30);
        for text in [
            "18446744073709551616",
            "99999999999999999999",
            "-9223372036854775809",
            thirty.as_str(),
        ] {
            let bad = parse(text.as_bytes(), &Limits::default()).expect_err(text);
            assert_eq!(bad.kind, BadJsonKind::Number, "{text}");
        }
        // Written as what is rounded anyway.
        for text in ["12345678901234567890123.0", "1e30", "\"12345678901234567890123\""] {
            parse(text.as_bytes(), &Limits::default()).expect(text);
        }
    }

    fn refuse(text: &str) -> (String, usize, usize, usize) {
        let bad = parse(text.as_bytes(), &Limits::default()).expect_err(text);
        (bad.cause, bad.offset, bad.line, bad.column)
    }

    #[test]
    fn refusals_say_what_and_where() {
        for (text, cause, offset, line, column) in [
            ("", "EOF while parsing a value", 0, 1, 1),
            (
                "{\"a\": 1,\n \"b\": \"x\\u0000\"}",
                "a string holds the NUL character `\\u0000`",
                17,
                2,
                9,
            ),
            (
                "{\"\\u0000\": 1}",
                "a string holds the NUL character `\\u0000`",
                2,
                1,
                3,
            ),
            ("[1,\n 2,\n tru]", "expected ident", 12, 3, 5),
            ("1 2", "trailing characters", 2, 1, 3),
        ] {
            assert_eq!(refuse(text), (cause.to_owned(), offset, line, column), "{text}");
        }
        assert_eq!(
            refuse("{\"account\": 12345678901234567890123}"),
            (
                "integer out of range: it does not fit into 64 bits".to_owned(),
                12,
                1,
                13
            )
        );
        assert!(refuse(&"9".repeat(400)).0.contains("out of range"));
        assert!(refuse("1e999").0.contains("out of range"));
        assert!(refuse("\"a\u{0}b\"").0.contains("control character"));
        assert!(parse(b"\"\xff\"", &Limits::default()).is_err());
        assert!(parse(b"\"\\", &Limits::default()).is_err());
    }

    #[test]
    fn refusals_name_the_rule_that_is_broken() {
        let small = Limits { bytes: 500, depth: 2 };
        for (text, kind) in [
            ("[1", BadJsonKind::Syntax),
            ("[[[]]]", BadJsonKind::Syntax),
            (&" ".repeat(501), BadJsonKind::Size),
            (r#""a\u0000""#, BadJsonKind::Nul),
            (&"9".repeat(400), BadJsonKind::Number),
            ("-1e999", BadJsonKind::Number),
        ] {
            assert_eq!(parse(text.as_bytes(), &small).expect_err(text).kind, kind, "{text}");
        }
    }

    #[test]
    fn an_escaped_backslash_before_u0000_is_only_text() {
        assert_eq!(parse(br#""\\u0000""#, &Limits::default()).unwrap(), json!("\\u0000"));
        assert!(parse(br#""\\\u0000""#, &Limits::default()).is_err());
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_past_it() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let limits = Limits::default();
        let deepest = parse(nested(MAX_DEPTH).as_bytes(), &limits).unwrap();
        assert_eq!(check(&deepest, &limits), Ok(()));
        assert_eq!(check(&json!([deepest]), &limits), Err(BadValue::TooDeep));
        assert!(parse(nested(MAX_DEPTH + 1).as_bytes(), &limits).is_err());
        assert!(parse("[".repeat(1_000_000).as_bytes(), &limits).is_err());

        let small = Limits { bytes: 10, depth: 2 };
        assert!(parse(b"\"12345678\"", &small).is_ok());
        assert!(parse(b"\"123456789\"", &small).is_err());
        assert_eq!(check(&json!("12345678"), &small), Ok(()));
        assert_eq!(check(&json!("123456789"), &small), Err(BadValue::TooLarge(10)));
        assert_eq!(check(&json!({"a\u{0}": 1}), &limits), Err(BadValue::Nul));
        assert_eq!(check(&json!(["\u{0}"]), &limits), Err(BadValue::Nul));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = parse(&bytes, &Limits::default()) {
                prop_assert_eq!(check(&value, &Limits::default()), Ok(()));
            }
        }

        #[test]
        fn json_like_text_is_parsed_or_refused(text in r#"[\[\]{}:,"0-9eE+.u\\ntfalsr \n-]{0,60}"#) {
            match parse(text.as_bytes(), &Limits::default()) {
                Ok(value) => prop_assert_eq!(check(&value, &Limits::default()), Ok(())),
                Err(bad) => prop_assert!(bad.offset <= text.len() && bad.line >= 1 && bad.column >= 1),
            }
        }
    }
}
