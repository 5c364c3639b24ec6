//! The graph of states: whether every one of them can reach an end, and how many ways there are.

#[derive(Default)]
pub(super) struct Edges(Vec<Vec<u32>>);

impl Edges {
    pub(super) fn add(&mut self, from: u32, to: u32) {
        let from = from as usize;
        if self.0.len() <= from {
            self.0.resize_with(from + 1, Vec::new);
        }
        if !self.0[from].contains(&to) {
            self.0[from].push(to);
        }
    }

    fn of(&self, state: u32) -> &[u32] {
        self.0.get(state as usize).map_or(&[], Vec::as_slice)
    }

    /// The first state from which none of these can be reached, in the order of their discovery.
    pub(super) fn first_without_end(&self, states: u32, ends: &[u32]) -> Option<u32> {
        let mut into = vec![Vec::new(); states as usize];
        for from in 0..states {
            for to in self.of(from) {
                into[*to as usize].push(from);
            }
        }
        let mut reaches = vec![false; states as usize];
        let mut left: Vec<u32> = ends.to_vec();
        while let Some(state) = left.pop() {
            if !std::mem::replace(&mut reaches[state as usize], true) {
                left.extend(&into[state as usize]);
            }
        }
        (0..states).find(|state| !reaches[*state as usize])
    }

    /// How many ways lead from the first state to a state without a way on, circles left out.
    pub(super) fn paths(&self, states: u32) -> f64 {
        let mut counts = vec![None::<f64>; states as usize];
        let mut under_way = vec![false; states as usize];
        let mut stack = vec![(0_u32, 0_usize)];
        while let Some((state, next)) = stack.last_mut() {
            let state = *state;
            under_way[state as usize] = true;
            match self.of(state).get(*next).copied() {
                Some(to) => {
                    *next += 1;
                    if counts[to as usize].is_none() && !under_way[to as usize] {
                        stack.push((to, 0));
                    }
                }
                None => {
                    let on = self.of(state);
                    let ways = on.iter().map(|to| counts[*to as usize].unwrap_or(0.0)).sum();
                    counts[state as usize] = Some(if on.is_empty() { 1.0 } else { ways });
                    under_way[state as usize] = false;
                    stack.pop();
                }
            }
        }
        counts.first().copied().flatten().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_counted_and_dead_ends_found() {
        let mut edges = Edges::default();
        for (from, to) in [(0, 1), (0, 2), (1, 3), (2, 3), (3, 0), (3, 4), (2, 5), (5, 5)] {
            edges.add(from, to);
        }
        assert_eq!(edges.paths(6), 2.0);
        assert_eq!(edges.first_without_end(6, &[4]), Some(5));
        assert_eq!(edges.first_without_end(6, &[4, 5]), None);
    }
}
