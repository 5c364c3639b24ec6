//! What replicas do with their sessions: open, renew, lose, release and recover them.

use super::{Pair, World, outcome};
use crate::store::conformance::Rig;
use crate::store::postgres::testing;
use crate::store::{Share, Store, StoreError};

impl World {
    fn share(&self, share: Result<Share, StoreError>) -> Result<String, StoreError> {
        share.map(|share| {
            let mut inherited: Vec<_> = share
                .inherited
                .iter()
                .map(|commit| (self.name(commit.session), commit.batch_no))
                .collect();
            inherited.sort_unstable();
            format!(
                "{:?} {} {} {inherited:?} {:?}",
                share.gained, share.surplus, share.live_sessions, share.telling
            )
        })
    }

    pub(super) async fn open(&mut self) {
        let process = usize::try_from(self.random.below(2)).unwrap();
        let replica = self.random.pick(&["a", "b", "c"]);
        let there = &self.processes[process];
        let memory = there.memory.open_session(replica).await;
        let postgres = there.postgres.open_session(replica).await;
        match (memory, postgres) {
            (Ok(memory), Ok(postgres)) => {
                assert_eq!((memory.epoch, memory.batch_no), (postgres.epoch, postgres.batch_no));
                self.sessions.push(Pair {
                    process,
                    alive: true,
                    memory,
                    postgres,
                });
                self.count("open");
            }
            (memory, postgres) => assert_eq!(outcome(&memory.map(|_| ())), outcome(&postgres.map(|_| ()))),
        }
    }

    pub(super) async fn keep(&mut self) {
        let Some(index) = self.some_session() else { return };
        let pair = self.sessions[index];
        if !pair.alive {
            return;
        }
        let published = self.published(index);
        let there = &self.processes[pair.process];
        let memory = there.memory.keep(&pair.memory, &published.0).await;
        let postgres = there.postgres.keep(&pair.postgres, &published.1).await;
        if let Ok(share) = &memory {
            let (gained, inherited) = (!share.gained.is_empty(), !share.inherited.is_empty());
            if gained {
                self.count("keep gained");
            }
            if inherited {
                self.count("keep inherited");
            }
        }
        let (memory, postgres) = (self.share(memory), self.share(postgres));
        self.counted("keep", outcome(&memory), outcome(&postgres));
        self.owed(index).await;
    }

    pub(super) async fn session_step(&mut self) {
        let Some(index) = self.some_session() else { return };
        let pair = self.sessions[index];
        let there = &self.processes[pair.process];
        let choice = if pair.alive { self.random.below(8) } else { 5 };
        match choice {
            0 => {
                let memory = there.memory.close_session(&pair.memory).await;
                let postgres = there.postgres.close_session(&pair.postgres).await;
                self.counted("close", outcome(&memory), outcome(&postgres));
            }
            1 | 2 => {
                let partitions: Vec<i16> = (0..self.random.below(4)).map(|_| self.random.partition()).collect();
                let memory = there.memory.release(&pair.memory, &partitions).await;
                let postgres = there.postgres.release(&pair.postgres, &partitions).await;
                self.counted("release", outcome(&memory), outcome(&postgres));
            }
            3 | 4 => {
                let memory = there.memory.recover(&pair.memory).await;
                let postgres = there.postgres.recover(&pair.postgres).await;
                if let (Ok(memory), Ok(postgres)) = (&memory, &postgres) {
                    self.sessions[index].memory = *memory;
                    self.sessions[index].postgres = *postgres;
                }
                let [memory, postgres] = [memory, postgres].map(|it| outcome(&it.map(|it| (it.epoch, it.batch_no))));
                self.counted("recover", memory, postgres);
            }
            5 | 6 => {
                self.model.lapse(pair.memory.id).await;
                testing::lapse(&self.url, pair.postgres.id).await;
                self.count("lapse");
            }
            _ => {
                let memory = there.memory.cursors(&pair.memory).await;
                let postgres = there.postgres.cursors(&pair.postgres).await;
                self.counted("cursors", outcome(&memory), outcome(&postgres));
            }
        }
    }

    pub(super) async fn kill(&mut self) {
        if !self.random.one_in(2) {
            return;
        }
        let fresh = self.process().await;
        let index = usize::try_from(self.random.below(2)).unwrap();
        let dead = std::mem::replace(&mut self.processes[index], fresh);
        for pair in self.sessions.iter_mut().filter(|pair| pair.process == index) {
            pair.alive = false;
        }
        dead.memory.kill_process();
        testing::kill(&self.url, dead.postgres).await;
        self.count("kill");
    }
}
