pub mod metric { 
pub const REJECTED:&str="a"; pub const DEAD_LETTERS:&str="a"; pub const RUNS_STARTED:&str="a"; pub const RUNS_CLOSED:&str="a"; pub const PUBLISH_ERRORS:&str="a"; pub const TASKS_DISPATCHED:&str="a"; pub const PARTITIONS_OWNED:&str="a"; pub const LIVE_RUNS:&str="a"; pub const COMMIT_SECONDS:&str=""; pub const BATCH_TRANSITIONS:&str=""; pub const TRANSITIONS:&str=""; pub const COMMIT_ERRORS:&str=""; pub const LOG_GAPS:&str="";
}
