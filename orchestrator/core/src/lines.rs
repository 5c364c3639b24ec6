//! The difference of two texts, line by line.

/// Longer texts are shown whole, one after the other.
const MAX_LINES: usize = 400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Both,
    /// Only in the first.
    Minus,
    /// Only in the second.
    Plus,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub sign: Sign,
    pub text: String,
}

/// The fewest lines taken out and put in that make the second of the first.
pub fn diff(first: &str, second: &str) -> Vec<Line> {
    let a: Vec<&str> = first.lines().collect();
    let b: Vec<&str> = second.lines().collect();
    let line = |sign, text: &str| Line {
        sign,
        text: text.to_owned(),
    };
    if a.len() > MAX_LINES || b.len() > MAX_LINES {
        let minus = a.iter().map(|text| line(Sign::Minus, text));
        return minus.chain(b.iter().map(|text| line(Sign::Plus, text))).collect();
    }
    // Lengths of the longest common rests.
    let width = b.len() + 1;
    let mut common = vec![0_u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i * width + j] = if a[i] == b[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push(line(Sign::Both, a[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < a.len() && (j == b.len() || common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            out.push(line(Sign::Minus, a[i]));
            i += 1;
        } else {
            out.push(line(Sign::Plus, b[j]));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(first: &str, second: &str) -> String {
        let signs = diff(first, second).into_iter().map(|line| {
            let sign = match line.sign {
                Sign::Both => ' ',
                Sign::Minus => '-',
                Sign::Plus => '+',
            };
            format!("{sign}{}", line.text)
        });
        signs.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn few_lines_change() {
        assert_eq!(text("a\nb\nc", "a\nx\nc"), " a -b +x  c");
        assert_eq!(text("", "a"), "+a");
        assert_eq!(text("a\nb", "b\na"), "-a  b +a");
        assert_eq!(text("a", "a"), " a");
    }
}
