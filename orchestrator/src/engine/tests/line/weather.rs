//! What befalls the calls of all replicas.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

use knarr_core::ids::RunId;

/// What a replica's calls meet with.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    /// The most that each half of a call takes, in milliseconds.
    pub(crate) latency_ms: AtomicU64,
    /// A commit takes so long beside that, in milliseconds.
    pub(crate) commit_ms: AtomicU64,
    /// Commits fail, and nothing else does.
    pub(crate) disk_is_full: AtomicBool,
    /// One in so many commits is lost, before or after its effect; 0 = none.
    pub(crate) lose_commit: AtomicU64,
    /// One in so many reads of the store fails.
    pub(crate) fail_read: AtomicU64,
    /// One in so many publications is not acknowledged, stored or not.
    pub(crate) lose_publication: AtomicU64,
    /// A batch with this in one of its events is refused.
    pub(crate) refuses: Mutex<Option<String>>,
    /// The next call of this name panics.
    pub(crate) panics: Mutex<Option<&'static str>>,
    /// The end of this partition's log lies further away than anybody reads.
    pub(crate) endless_log: Mutex<Option<i16>>,
    /// While it is there, loads of this run do not return.
    pub(crate) withholds: Mutex<Option<RunId>>,
    /// What is read of the sizes of runs returns so late, in milliseconds.
    pub(crate) answers_late_ms: AtomicU64,
    /// The next look-up of runs takes three seconds, and its answer is lost.
    pub(crate) loses_look_up: AtomicBool,
    /// Each renewal tells of all partitions as if they had just been gained.
    pub(crate) repeats_gained: AtomicBool,
    /// Snapshots come back as something else.
    pub(crate) spoils_snapshots: AtomicBool,
    /// And so do events.
    pub(crate) spoils_events: AtomicBool,
    /// Or those of this run alone.
    pub(crate) spoils_run: Mutex<Option<RunId>>,
    /// Publications whose subject begins with this are not acknowledged.
    pub(crate) loses_subject: Mutex<Option<&'static str>>,
    /// And of these none is ever taken.
    pub(crate) refuses_subject: Mutex<Option<&'static str>>,
    /// Questions about the queues of this namespace are not answered.
    pub(crate) mute: Mutex<Option<&'static str>>,
    /// So many attempts to take a task out of its queue fail.
    pub(crate) fail_withdrawals: AtomicU64,
    /// What is noticed of each after that time, in milliseconds.
    pub(crate) notices_after_ms: AtomicU64,
}
