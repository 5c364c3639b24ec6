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

/// Why bytes are not JSON that can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause} at line {line}, column {column}")]
pub struct BadJson {
    /// One sentence fragment, lower case.
    pub cause: String,
    pub offset: usize,
    /// Counted from 1.
    pub line: usize,
    /// In bytes, counted from 1.
    pub column: usize,
}

impl BadJson {
    fn at(bytes: &[u8], offset: usize, cause: impl Into<String>) -> Self {
        let before = &bytes[..offset.min(bytes.len())];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        Self {
            cause: cause.into(),
            offset,
            line: 1 + before.iter().filter(|b| **b == b'\n').count(),
            column: 1 + before.len() - line_start,
        }
    }
}

/// Parses a body. Never panics, and never recurses deeper than `limits.depth`.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Value, BadJson> {
    if bytes.len() > limits.bytes {
        let cause = format!("the body has {} bytes; the limit is {}", bytes.len(), limits.bytes);
        return Err(BadJson::at(bytes, limits.bytes, cause));
    }
    scan(bytes, limits.depth.min(MAX_DEPTH))?;
    serde_json::from_slice(bytes).map_err(|error| {
        let offset = offset_of(bytes, error.line(), error.column());
        let text = error.to_string();
        // The position is given beside the cause.
        let cause = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
        BadJson::at(bytes, offset, cause)
    })
}

/// Depth and NUL characters, before anything is allocated. Bad syntax is left to the parser.
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
                        return Err(BadJson::at(bytes, at, "a string holds the NUL character `\\u0000`"));
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
                        return Err(BadJson::at(bytes, at, cause));
                    }
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
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
