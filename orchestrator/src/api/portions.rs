//! Runs read to be folded for people: as many at a time as fit, and a large one alone.

use std::ops::Range;

use knarr_core::ids::RunId;

use crate::api::Operations;
use crate::store::{RunRow, Store, StoreError};

/// Runs above this are read alone.
const TOGETHER: u64 = 4 * 1024 * 1024;

/// Rows that are read in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Portion {
    pub(super) rows: Range<usize>,
    pub(super) bytes: u64,
}

impl<S: Store> Operations<S> {
    /// All of the rows, in their order.
    pub(super) async fn portions(&self, rows: &[RunRow]) -> Result<Vec<Portion>, StoreError> {
        let ids: Vec<RunId> = rows.iter().map(|row| row.run_id).collect();
        let known = self.store.run_sizes(&ids).await?;
        let size = |id: &RunId| {
            known
                .iter()
                .find(|size| size.run_id == *id)
                .map_or(0, |size| size.bytes)
        };
        Ok(cut(&ids.iter().map(size).collect::<Vec<_>>()))
    }
}

fn cut(sizes: &[u64]) -> Vec<Portion> {
    let mut portions: Vec<Portion> = Vec::new();
    for (index, size) in sizes.iter().enumerate() {
        match portions
            .last_mut()
            .filter(|last| last.bytes.saturating_add(*size) <= TOGETHER)
        {
            Some(last) => {
                last.rows.end = index + 1;
                last.bytes += size;
            }
            None => portions.push(Portion {
                rows: index..index + 1,
                bytes: *size,
            }),
        }
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_read_together_and_a_large_run_alone() {
        let of = |sizes: &[u64]| {
            let portions = cut(sizes).into_iter();
            portions.map(|it| (it.rows.start, it.rows.end)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[1, 2, 0]), [(0, 3)]);
        assert_eq!(of(&[1, TOGETHER - 1, 1]), [(0, 2), (2, 3)]);
        assert_eq!(of(&[1, 9 * TOGETHER, 1, 1]), [(0, 1), (1, 2), (2, 4)]);
    }
}
