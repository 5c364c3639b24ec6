//! The end: nothing more is taken, what was taken is committed and published, the session is given up.
//!
//! A partition is left, here or because another replica is to have it, by listening no longer; workers are then told by NATS
//! itself that nobody does. What has arrived before and will not be taken is answered: a worker that hears nothing waits for
//! a second.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::batch::Outbound;
use super::job::{Job, JobKind, Origin};
use super::outgoing;
use super::report::Done;
use super::run_loop::Loop;
use crate::bus::inlet::Admitted;
use crate::bus::{Bus, Incoming};
use crate::store::{Batch, Store};

/// For the last commits; what is not committed by then comes again to whoever takes over.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// For the last publications.
const PUBLISH_WITHIN: Duration = Duration::from_secs(3);

impl<S: Store, B: Bus> Loop<S, B> {
    /// Begins the end: nothing more is taken, what was taken is committed.
    pub(super) fn stop(&mut self) {
        tracing::info!("stopping: handing over");
        self.stopping = true;
        self.stop_by = Some(Instant::now() + STOP_WITHIN);
        for partition in self.readers.opened() {
            drop(self.readers.close(&self.bus, &self.tasks, partition));
        }
        let direct = std::mem::take(&mut self.direct);
        let lacking = std::mem::take(&mut self.lacking);
        for job in direct.into_iter().chain(lacking) {
            self.turn_away(&job);
        }
    }

    /// Of what arrives at the end only results matter: their workers wait.
    pub(super) fn take_no_more(&mut self, message: Incoming) {
        if let Incoming::Direct(message) = message {
            let job = self.reader.direct(message);
            self.turn_away(&job);
        }
    }

    /// A result that is not taken here, with nothing said against it: its worker is sent on at once.
    pub(super) fn turn_away(&mut self, job: &Job) {
        if let (
            JobKind::Result { .. },
            Origin::Direct {
                confirm: Some(inbox),
                token,
                ..
            },
        ) = (&job.kind, &job.origin)
        {
            self.moved.entry(inbox.clone()).or_default().push(token.clone());
        }
    }

    /// Nothing has to be committed for it: it says nothing of any run.
    pub(super) fn send_on(&mut self) {
        if self.moved.is_empty() {
            return;
        }
        let answers = std::mem::take(&mut self.moved).into_iter();
        let outbound = Outbound {
            answers: answers.map(|(inbox, tokens)| outgoing::moved(inbox, tokens)).collect(),
            ..Outbound::default()
        };
        self.let_out(None, outbound);
    }

    /// Waits for publications, a while, and ends the session.
    pub(super) async fn leave(
        mut self,
        mut incoming: mpsc::Receiver<Admitted>,
        mut reports: mpsc::UnboundedReceiver<Done>,
    ) {
        self.tasks.close();
        let tasks = self.tasks.clone();
        let (publishing, limit) = (tasks.wait(), Instant::now() + PUBLISH_WITHIN);
        tokio::pin!(publishing);
        loop {
            // Readers that close hand over what they have received.
            tokio::select! {
                biased;
                () = &mut publishing => break,
                () = tokio::time::sleep_until(limit) => {
                    // The commit's row stays: whoever takes over publishes again.
                    self.publisher.stop.cancel();
                    let _ = tokio::time::timeout(Duration::from_secs(1), tasks.wait()).await;
                    break;
                }
                Some(taken) = incoming.recv() => {
                    self.take_no_more(taken.incoming);
                    while let Ok(taken) = incoming.try_recv() {
                        self.take_no_more(taken.incoming);
                    }
                    self.send_on();
                }
            }
        }
        while let Ok(taken) = incoming.try_recv() {
            self.take_no_more(taken.incoming);
        }
        self.send_on();
        while let Ok(report) = reports.try_recv() {
            if let Done::Published {
                published: Some(published),
                ..
            } = report
            {
                self.publication_ended(published);
            }
        }
        let published = self.take_published();
        let ending = async {
            if !published.is_empty() && self.committing.is_none() && !self.recovering {
                let batch = Batch {
                    published,
                    ..Batch::default()
                };
                // If it fails they are published once more.
                let _ = self.store.commit(&self.session, &batch).await;
            }
            // Partitions that are free would go to somebody else than what is owed to their runs.
            if self.works_on_inheritance() || !self.owing_successors.is_empty() {
                tracing::info!(
                    "runs are owed their successors: whoever takes over takes all, when the lease has ended"
                );
                return Ok(());
            }
            self.store.close_session(&self.session).await
        };
        match tokio::time::timeout(Duration::from_secs(3), ending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the session could not be ended; its lease will"),
            Err(_) => tracing::warn!("the session could not be ended in time; its lease will"),
        }
    }
}
