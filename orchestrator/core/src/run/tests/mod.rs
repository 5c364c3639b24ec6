//! Rules of the state machine as scenarios, one file a behaviour, and properties over random plans and inputs. Which test
//! says that a saga is handled right is in the table of [`behaviours`].

mod activities;
mod admission;
mod again;
mod attempts;
mod behaviours;
mod blocks;
mod checked;
mod children;
mod deadlines;
mod delays;
mod dsl;
mod effects;
mod endings;
mod examples;
mod forward;
mod golden;
mod handlers;
mod late;
mod limits;
mod loops;
mod messages;
mod migrations;
mod operators;
mod parallel;
mod permits;
mod pivots;
mod properties;
mod schedules;
mod stored;
mod triggers;
mod turns;
mod undo;
mod updates;
mod waits;
mod withdrawals;
