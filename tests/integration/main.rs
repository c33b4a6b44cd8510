//! Stories that cross module borders, one file per story.

mod cli;
mod control;
mod ending;
mod harness;
mod stock_daemon;
