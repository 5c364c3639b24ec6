//! Texts: how wide they are, cut to a length, escaped.

/// Size of what is written in boxes.
pub(super) const LINE_HEIGHT: i32 = 18;

/// About how wide a text is in the font of the picture, rather too wide than too narrow: nobody's fonts are known here.
pub(super) fn width(text: &str) -> i32 {
    let tenths: i32 = text
        .chars()
        .map(|c| match c {
            'i' | 'l' | 'j' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' => 42,
            't' | 'f' | 'r' | '(' | ')' | '[' | ']' | '-' | '"' => 53,
            'm' | 'w' | 'M' | 'W' | '@' | '%' | '↶' | '…' => 125,
            c if c.is_uppercase() => 92,
            c if c.is_ascii() => 81,
            _ => 130,
        })
        .sum();
    tenths / 10 + 1
}

/// At most `limit` characters, the last one `…` where something was cut off.
pub(in super::super) fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

/// For text and attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no way to write most of them.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_and_escaped() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(escape("a<b & \"c\"\u{0}"), "a&lt;b &amp; &quot;c&quot; ");
        assert!(width("wide") > width("ill"));
    }
}
