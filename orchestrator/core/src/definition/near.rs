//! The nearest right name to a wrong one.

/// The candidate with the fewest edits, if they are few for a name of that length.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.chars().take(64).collect();
    // A third of the name may be wrong, and always one letter.
    let allowed = (name.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&name, candidate), candidate))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, remove, replace, swap of neighbours) between two names; case and `-` against `_` count as none.
fn distance(name: &[char], candidate: &str) -> usize {
    let fold = |c: char| if c == '-' { '_' } else { c.to_ascii_lowercase() };
    let a: Vec<char> = name.iter().map(|c| fold(*c)).collect();
    let b: Vec<char> = candidate.chars().take(64).map(fold).collect();
    let width = b.len() + 1;
    let mut rows = vec![0; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i * width + j] = if i == 0 {
                j
            } else if j == 0 {
                i
            } else {
                let replace = rows[(i - 1) * width + j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replace
                    .min(rows[(i - 1) * width + j] + 1)
                    .min(rows[i * width + j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[(i - 2) * width + j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses() {
        let keys = ["activity", "compensate", "retry", "start_to_close"];
        assert_eq!(nearest("actvity", keys), Some("activity"));
        assert_eq!(nearest("compenstae", keys), Some("compensate"));
        assert_eq!(nearest("start-to-close", keys), Some("start_to_close"));
        assert_eq!(nearest("Retry", keys), Some("retry"));
        assert_eq!(nearest("banana", keys), None);
        assert_eq!(nearest("", keys), None);
    }
}
