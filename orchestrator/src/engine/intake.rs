//! Taking what the bus hands over: each message to its partition's queue, and what the log says of itself.

use super::code;
use super::job::{Job, JobKind};
use super::run_loop::Loop;
use crate::bus::inlet::Admitted;
use crate::bus::{Bus, Incoming};
use crate::store::Store;
use crate::telemetry::metric;

impl<S: Store, B: Bus> Loop<S, B> {
    /// Sorts a message to its queue.
    pub(super) fn take(&mut self, Admitted { incoming, held }: Admitted) {
        match incoming {
            Incoming::Log(message) => {
                let number = message.partition;
                let Some(partition) = self.partitions.get(number) else {
                    return;
                };
                if partition.reader != message.reader || partition.leaving_after.is_some() {
                    return;
                }
                self.reader.clock.see(message.cursor.at, self.clock.now());
                let mut job = self.reader.log(message);
                job.held = held;
                if let Some(partition) = self.partitions.get_mut(number) {
                    partition.queue.push_back(job);
                }
            }
            Incoming::Direct(message) => {
                let serves = self.partitions.serves(message.partition);
                let mut job = self.reader.direct(message);
                job.held = held;
                if serves {
                    self.direct.push_back(job);
                } else {
                    self.turn_away(&job);
                }
            }
            Incoming::Gap(gap) => self.gap(gap),
            Incoming::TaskLost {
                partition,
                namespace,
                token,
            } => {
                if self.partitions.serves(partition)
                    && let Some(job) = self.reader.task_lost(&namespace, &token)
                {
                    self.direct.push_back(job);
                }
            }
            Incoming::Idle {
                partition,
                cursor,
                reader,
            } => self.idle(partition, cursor, reader),
            Incoming::Clock(at) => self.reader.clock.see(at, self.clock.now()),
            Incoming::Reconnected => {
                let until = self.clock.now().plus(self.config.timeout_grace);
                for (_, partition) in self.partitions.iter_mut() {
                    partition.grace_until = until;
                }
            }
        }
    }

    /// The log lost something. What was read before takes effect first: nobody else has it any more.
    pub(super) fn gap(&mut self, gap: crate::bus::LogGap) {
        if let Some(partition) = self.partitions.get_mut(gap.partition)
            && partition.reader == gap.reader
            && partition.leaving_after.is_none()
        {
            let said_to = None;
            partition.queue.push_back(Job::internal(JobKind::Gap { gap, said_to }));
        }
    }

    /// A gap is said once, by its range, and reading goes on behind it.
    pub(super) fn pass_gap(&mut self, gap: &crate::bus::LogGap) {
        let (from, to) = (gap.lost_after.sequence, gap.resumes_at.sequence);
        metrics::counter!(metric::LOG_GAPS).increment(1);
        if gap.lost_after.stream == gap.resumes_at.stream {
            metrics::counter!(metric::LOG_GAP_MESSAGES).increment(from.saturating_sub(to));
        }
        tracing::error!(
            code = code::LOG_GAP.id,
            partition = gap.partition,
            after_sequence = from,
            after_time = %gap.lost_after.at.to_utc(),
            stream = %gap.lost_after.stream,
            resumes_after_sequence = to,
            resumed_stream = %gap.resumes_at.stream,
            "the log is not the one that was read: messages stored after this position and not yet taken are lost unless \
             their publishers send them again"
        );
        if let Some(partition) = self.partitions.get_mut(gap.partition) {
            partition.applied = gap.resumes_at.clone();
        }
        self.building.cursor(gap.partition, gap.resumes_at.clone());
        self.gate.log_changed(gap.partition);
    }

    /// Nothing more lies in a partition's log: its cursor follows the stream, so that the log can be purged behind it.
    pub(super) fn idle(&mut self, number: i16, cursor: crate::store::Cursor, reader: u64) {
        let Some(partition) = self.partitions.get_mut(number) else {
            return;
        };
        if partition.reader == reader
            && partition.leaving_after.is_none()
            && partition.queue.is_empty()
            && cursor.sequence > partition.applied.sequence
        {
            partition.applied = cursor.clone();
            self.building.cursor(number, cursor);
        }
    }
}
