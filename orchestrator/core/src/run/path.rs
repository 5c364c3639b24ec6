//! Reading step paths. Their form is told in [`crate::definition::plan::Node`].

use crate::ids::StepPath;

/// What lies around a place, from the inside out, without the place itself: `a[2].b` lies in `a[2]`, `a` and the root.
pub(super) fn around(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(outer(path), |path| outer(path))
}

fn outer(path: &str) -> Option<&str> {
    if path.is_empty() {
        return None;
    }
    if let Some((of, _)) = iteration(path) {
        return Some(of);
    }
    Some(path.rsplit_once('.').map_or("", |(outer, _)| outer))
}

/// The loop and the number of an iteration, if the path is that of one.
pub(super) fn iteration(path: &str) -> Option<(&str, u32)> {
    let (of, number) = path.strip_suffix(']')?.rsplit_once('[')?;
    Some((of, number.parse().ok()?))
}

pub(super) fn of_iteration(of: &StepPath, index: u32) -> StepPath {
    StepPath::from(format!("{of}[{index}]").as_str())
}

/// Whether a place is the region or lies in it.
pub(super) fn is_within(path: &str, region: &str) -> bool {
    region.is_empty()
        || path
            .strip_prefix(region)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A step's own id.
pub(super) fn last_segment(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, last)| last)
}

/// A segment without the number of an iteration.
pub(super) fn name_of(segment: &str) -> &str {
    segment.split_once('[').map_or(segment, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_in_iterations_loops_and_bodies() {
        let places: Vec<_> = around("split.card[2].pay").collect();
        assert_eq!(places, ["split.card[2]", "split.card", "split", ""]);
        assert_eq!(around("").count(), 0);
        assert_eq!(iteration("a.b[12]"), Some(("a.b", 12)));
        assert_eq!(iteration("a[1].b"), None);
    }

    #[test]
    fn a_region_ends_at_a_boundary() {
        for (path, region, within) in [
            ("a.b", "a", true),
            ("a[0].b", "a", true),
            ("a", "a", true),
            ("ab", "a", false),
            ("a[10].b", "a[1]", false),
            ("anything", "", true),
        ] {
            assert_eq!(is_within(path, region), within, "{path} in {region}");
        }
    }
}
