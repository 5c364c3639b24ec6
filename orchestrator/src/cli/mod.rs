//! The command line: one file a command. Data goes to stdout, everything else to stderr.

pub mod bench;
pub mod cancel;
pub mod code;
pub mod error;
pub mod explain;
pub mod globals;
pub mod history;
pub mod list;
pub mod namespace;
pub mod output;
pub mod show;
pub mod start;
pub mod timeline;
