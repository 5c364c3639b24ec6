//! From YAML (and so JSON) text to a [`Node`] tree. The only place that knows serde-saphyr.
//!
//! **Invariant:** whatever the text, parsing is bounded: by its size, its depth, and what its aliases expand to.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

use super::code;
use super::diagnostic::Diagnostic;
use super::tree::{Key, Kind, Node, Place};

/// Largest document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// Deepest nesting: ten levels of steps are 64 of YAML. What stands in it as data is held to what JSON may have.
pub const MAX_DOCUMENT_DEPTH: usize = 100;
/// About 30 KiB a level are needed without optimisation, a tenth of that with it.
const STACK_BYTES: usize = 8 * 1024 * 1024;
/// Values after aliases are expanded.
pub const MAX_DOCUMENT_NODES: usize = 20_000;

struct Raw(Kind);

pub(super) fn parse(text: &str) -> Result<Node, Diagnostic> {
    if text.len() > MAX_DOCUMENT_BYTES {
        let message = format!(
            "the document has {} bytes; the limit is {MAX_DOCUMENT_BYTES}",
            text.len()
        );
        return Err(Diagnostic::error(code::TOO_LARGE, 0..0, message));
    }
    if let Some(at) = text.find('\0') {
        return Err(Diagnostic::error(
            code::SYNTAX,
            at..at + 1,
            "the document holds a NUL character",
        ));
    }
    let mut node = with_room(|| parse_here(text))?;
    mend(&mut node, text);
    Ok(node)
}

fn parse_here(text: &str) -> Result<Node, Diagnostic> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DOCUMENT_DEPTH,
            flow_nesting_limit: MAX_DOCUMENT_DEPTH,
            max_nodes: MAX_DOCUMENT_NODES,
            max_events: 4 * MAX_DOCUMENT_NODES,
            max_documents: 2,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 100,
            max_recorded_anchor_bytes: 4 * MAX_DOCUMENT_BYTES,
            max_total_scalar_bytes: 4 * MAX_DOCUMENT_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_DOCUMENT_NODES,
            max_replay_stack_depth: 16,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
    };
    let spanned: Spanned<Raw> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| refuse(text, &error))?;
    Ok(node(spanned))
}

/// The parser recurses, and at [`MAX_DOCUMENT_DEPTH`] it needs more stack than an unoptimised build may have left.
fn with_room(parse: impl FnOnce() -> Result<Node, Diagnostic> + Send) -> Result<Node, Diagnostic> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
        match builder.spawn_scoped(scope, parse) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => {
                let message = format!("there is no memory to parse the document in ({error})");
                Err(Diagnostic::error(code::TOO_LARGE, 0..0, message))
            }
        }
    })
}

fn refuse(text: &str, error: &serde_saphyr::Error) -> Diagnostic {
    let span = error.location().map_or(0..0, |location| place_in(text, &location));
    let end = span.end.max(span.start + 1).min(text.len());
    let span = span.start.min(end)..end;
    let message = error.without_snippet().to_string();
    // Its own position and advice are for readers of its documentation; ours are beside the message.
    let message = message.lines().next().unwrap_or_default();
    let rest = message;
    let message = message.rfind(" at line ").map_or(message, |at| &message[..at]);
    // An alias over its budget arrives as text: its variant is wrapped where it is used.
    let breach = matches!(error.without_snippet(), serde_saphyr::Error::Budget { .. })
        || ["limit exceeded", "budget"].iter().any(|sign| message.contains(sign));
    if breach {
        // Of an alias both places are told, its own and the one that it stands for.
        let message = rest.find(" at line ").map_or(message, |at| &rest[..at]);
        let message = format!("the document is too deep, or has too many values ({message})");
        return Diagnostic::error(code::TOO_LARGE, span, message);
    }
    if message.starts_with("multiple YAML documents") {
        return Diagnostic::error(code::SYNTAX, span, "a second document begins before this")
            .help("A file holds one definition: put what follows `---` into a file of its own.");
    }
    let finding = Diagnostic::error(code::SYNTAX, span, message);
    if message.contains("tabs disallowed") {
        return finding.help("Indent with blanks: YAML takes no tabs there.");
    }
    finding
}

fn span(location: &Location) -> Place {
    let span = location.span();
    let number = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let start = number(span.byte_offset());
    start..start + number(span.byte_len())
}

/// Syntax errors know their line and column only.
fn place_in(text: &str, location: &Location) -> Place {
    if location.span().byte_offset().is_some() {
        return span(location);
    }
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).saturating_sub(1);
    let line_start: usize = text
        .split_inclusive('\n')
        .take(number(location.line()))
        .map(str::len)
        .sum();
    let line = text[line_start..].lines().next().unwrap_or_default();
    let column = line
        .chars()
        .take(number(location.column()))
        .map(char::len_utf8)
        .sum::<usize>();
    line_start + column..line_start + column
}

fn node(spanned: Spanned<Raw>) -> Node {
    Node {
        span: span(&spanned.referenced),
        kind: spanned.value.0,
    }
}

/// Spans are used to cut the text: hold them inside of it.
fn mend(node: &mut Node, text: &str) {
    let clamp = |span: &mut Place| {
        let valid = span.start <= span.end && text.get(span.clone()).is_some();
        if !valid {
            *span = 0..0;
        }
    };
    clamp(&mut node.span);
    match &mut node.kind {
        Kind::Array(items) => items.iter_mut().for_each(|item| mend(item, text)),
        Kind::Object(entries) => {
            for (key, item) in entries {
                clamp(&mut key.span);
                mend(item, text);
            }
        }
        _ => {}
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw(Kind::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw(Kind::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Raw, E> {
        Ok(Raw(Kind::Bool(truth)))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw(Kind::Number(number.into())))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Raw, E> {
        Ok(Raw(Kind::Number(number.into())))
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Raw, E> {
        Err(E::custom(format_args!("the number {number} does not fit 64 bits")))
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<Raw, E> {
        Err(E::custom(format_args!("the number {number} does not fit 64 bits")))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Raw, E> {
        serde_json::Number::from_f64(number)
            .map(|number| Raw(Kind::Number(number)))
            .ok_or_else(|| E::custom("the number is not finite"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Raw, E> {
        if text.contains('\0') {
            return Err(E::custom("a string holds the NUL character"));
        }
        Ok(Raw(Kind::String(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element::<Spanned<Raw>>()? {
            items.push(node(item));
        }
        Ok(Raw(Kind::Array(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let item = map.next_value::<Spanned<Raw>>()?;
            let span = span(&key.referenced);
            if key.value.contains('\0') {
                return Err(de::Error::custom("a key holds the NUL character"));
            }
            entries.push((Key { text: key.value, span }, node(item)));
        }
        Ok(Raw(Kind::Object(entries)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_where_they_stand() {
        let text = "a: 1\nb: { c: [yes, 'x y', 2.5, ~] }\nd: \"q\"\n";
        let tree = parse(text).unwrap();
        let mut seen = Vec::new();
        tree.visit(&mut |node| {
            if !matches!(node.kind, Kind::Array(_) | Kind::Object(_)) {
                seen.push(&text[node.span.clone()]);
            }
        });
        assert_eq!(seen, ["1", "yes", "'x y'", "2.5", "~", "\"q\""]);
        let Kind::Object(entries) = &tree.kind else { panic!() };
        let keys: Vec<_> = entries.iter().map(|(key, _)| &text[key.span.clone()]).collect();
        assert_eq!(keys, ["a", "b", "d"]);
        assert_eq!(
            tree.to_json(),
            serde_json::json!({"a": 1, "b": {"c": ["yes", "x y", 2.5, null]}, "d": "q"})
        );
    }

    #[test]
    fn json_is_yaml() {
        let text = "{\n\t\"a\": [1, -2, 1e3, true, null, \"\\u00e9\\/\\\"\"],\n\t\"b\": {\"c\": {}}\n}";
        assert_eq!(
            parse(text).unwrap().to_json(),
            serde_json::from_str::<serde_json::Value>(text).unwrap()
        );
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let references = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{references}]\n"));
        }
        assert_eq!(parse(&bomb).unwrap_err().code, code::TOO_LARGE, "{:?}", parse(&bomb));
        let block: String = (0..200).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        for deep in ["[".repeat(100_000), "- ".repeat(50_000), "{a: ".repeat(20_000), block] {
            assert!(parse(&deep).is_err(), "{}", &deep[..20]);
        }
        assert_eq!(
            parse(&" ".repeat(MAX_DOCUMENT_BYTES + 1)).unwrap_err().code,
            code::TOO_LARGE
        );
        assert_eq!(
            parse(&"- 1\n".repeat(MAX_DOCUMENT_NODES)).unwrap_err().code,
            code::TOO_LARGE
        );
    }

    #[test]
    fn what_is_wrong_is_said_for_authors_and_not_for_programmers() {
        let several = parse("a: 1\n---\nb: 2\n").unwrap_err();
        assert_eq!(several.message, "a second document begins before this");
        assert!(several.help.contains("a file of its own"), "{several:?}");
        let tabs = parse("a:\n\t- b\n").unwrap_err();
        assert!(tabs.help.contains("blanks"), "{tabs:?}");
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let references = vec![format!("*a{}", level - 1); 9].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{references}]\n"));
        }
        let bomb = parse(&bomb).unwrap_err().message;
        assert_eq!(bomb.matches('(').count(), bomb.matches(')').count(), "{bomb}");
        assert!(!bomb.contains(" at line "), "{bomb}");
    }

    #[test]
    fn syntax_errors_know_their_place() {
        let text = "a: 1\nü: [ö\n}";
        let finding = parse(text).unwrap_err();
        assert_eq!((finding.code, &text[finding.span]), (code::SYNTAX, "["));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["a: .nan", "a: \"\\0\"", "a: 1\n---\nb: 2", "{1: [}", "? [a]\n: b"] {
            assert!(parse(text).is_err(), "{text}: {:?}", parse(text));
        }
    }
}
