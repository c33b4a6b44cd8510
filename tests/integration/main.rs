//! Stories that cross module borders, one file per story.

mod harness;
mod stock_daemon;
