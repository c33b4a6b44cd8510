//! Stories that cross module borders, one file per story.

mod cli;
mod control;
mod harness;
mod stock_daemon;
