//! Where decisions come from: a seed, or the bytes of a fuzzer.

/// **Invariant:** the same source gives the same numbers. One of bytes that is used up gives zeros, and zero is always the
/// plainest choice, so that fewer bytes make a smaller case.
#[derive(Debug, Clone)]
pub struct Words {
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Seed(u64),
    Bytes(Vec<u8>, usize),
}

impl Words {
    pub fn of_seed(seed: u64) -> Self {
        let source = Source::Seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03);
        Self { source }
    }

    pub fn of_bytes(bytes: &[u8]) -> Self {
        let source = Source::Bytes(bytes.to_vec(), 0);
        Self { source }
    }

    /// Whether all bytes are used; a seed never is.
    pub fn is_over(&self) -> bool {
        matches!(&self.source, Source::Bytes(bytes, at) if *at >= bytes.len())
    }

    /// Splitmix64; of bytes as many as the limit needs.
    fn next(&mut self, limit: u32) -> u32 {
        match &mut self.source {
            Source::Seed(state) => {
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut word = *state;
                word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                ((word ^ (word >> 31)) >> 32) as u32
            }
            Source::Bytes(bytes, at) => {
                let mut take = || {
                    let byte = bytes.get(*at).copied().unwrap_or(0);
                    *at += 1;
                    u32::from(byte)
                };
                match limit {
                    0..=0x100 => take(),
                    _ => take() << 8 | take(),
                }
            }
        }
    }

    /// Below the limit, which is at most 65,536.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.next(limit) % limit.max(1)
    }

    pub fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == n.max(1) - 1
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(u32::try_from(of.len()).unwrap()) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gives_the_same_numbers_and_ends_in_zeros() {
        let draw = |mut words: Words| (0..20).map(|_| words.below(1000)).collect::<Vec<_>>();
        assert_eq!(draw(Words::of_seed(7)), draw(Words::of_seed(7)));
        assert_ne!(draw(Words::of_seed(7)), draw(Words::of_seed(8)));
        let mut bytes = Words::of_bytes(&[9, 200]);
        assert_eq!((bytes.below(4), bytes.below(256), bytes.below(9)), (1, 200, 0));
        assert!(bytes.is_over() && !bytes.one_in(3));
    }
}
