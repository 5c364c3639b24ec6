//! What every store must do, run against the memory model and against PostgreSQL.

mod actors;
mod batches;
mod deferred;
mod definitions;
mod leases;
mod limits;
mod lists;
mod rig;
mod rows;
mod runs;

use std::collections::BTreeSet;

use knarr_core::ids::{DefinitionHash, MessageNo, Namespace, QueueName, RequestId, RunId, WorkflowId, WorkflowName};
use knarr_core::limit::{Ask, Bound, LimitKind, LimitName, Limiter, Permit, Row};
use knarr_core::run::effect::Direction;
use knarr_core::run::message::Sender;
use knarr_core::time::{Span, Timestamp};
use uuid::Uuid;

use super::memory::MemoryStore;
use super::postgres::{PostgresStore, testing};
use super::{
    Append, Batch, CLOSED_LIMIT, CommitError, CommitId, Cursor, CursorWrite, DEFERRED_LIMIT, DefaultVersion,
    DeferredId, DeferredInput, DefinitionFilter, DuePage, EVENTS_BY_DEFAULT, FORMAT_LEVEL, FOUND_OUTCOME_BYTES,
    Forgotten, LimitLine, NamespaceRow, Owed, OwedSpan, PermitId, PermitRow, PermitWrite, PlaceAsked, QueueRate,
    QueueRow, Registered, RunFilter, RunRow, RunWrite, Session, Snapshot, Store, StoreError, StoredDefinition,
    StoredTransition,
};

use actors::*;
use batches::*;
pub(crate) use deferred::*;
pub(crate) use definitions::*;
use leases::*;
pub(crate) use limits::*;
use lists::*;
pub(crate) use rig::*;
pub(crate) use rows::*;
use runs::*;

macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(<super::MemoryRig as super::Rig>::start().await).await;
            })*
        }

        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(<super::PostgresRig as super::Rig>::start().await).await;
            })*
        }
    };
}

conformance!(
    a_cluster_is_founded_once,
    a_batch_is_there_as_a_whole,
    a_birth_is_read_as_it_was_written,
    an_old_epoch_writes_nothing,
    an_old_batch_number_writes_nothing,
    a_foreign_cursor_fences,
    a_foreign_partition_fences,
    bad_data_leaves_nothing,
    a_closed_run_may_wait_and_run_again,
    limits_of_values_are_accepted,
    one_open_run_a_workflow_id,
    who_is_queued_is_open_without_its_id,
    who_had_an_id_last_is_found_whatever_its_run_id,
    who_had_an_id_is_told_from_the_last_to_the_first,
    a_run_closes_and_its_id_opens_again_in_one_batch,
    found_are_open_newest_closed_and_requested,
    a_long_outcome_is_found_by_its_run_alone,
    zero_in_a_question_is_refused,
    loading_starts_at_the_snapshot,
    due_runs_come_earliest_first,
    lists_go_by_keyset,
    schedules_are_listed_by_themselves,
    triggers_are_listed_by_themselves_and_found_by_partition,
    an_occurrence_is_started_once,
    what_a_snapshot_of_a_schedule_has_taken_in_may_go,
    definitions_never_change,
    namespaces_exist_once,
    who_keeps_a_lease_hears_that_something_was_committed,
    who_keeps_a_lease_hears_whose_events_are_on,
    a_lapsed_session_is_taken_over_as_a_whole,
    a_lapsed_owner_may_renew,
    a_restarted_replica_inherits_at_once,
    a_namesake_is_refused_while_it_lives,
    shares_are_fair_and_released_ones_move,
    a_closed_session_leaves_its_commits,
    recovery_raises_the_epoch_and_may_be_repeated,
    recovery_after_a_takeover_is_fenced,
    published_commits_go,
    the_format_level_follows_the_oldest_session,
    deferred_inputs_stay_until_they_are_settled,
    a_batch_with_deferred_inputs_is_there_as_a_whole,
    rows_of_limiters_are_written_with_their_batch_or_not_at_all,
    what_is_said_of_a_queue_replaces_what_was_and_raises_the_epoch,
    limits_in_use_are_counted,
    who_waits_at_a_limit_knows_its_place,
    sizes_are_those_of_what_is_loaded,
);
