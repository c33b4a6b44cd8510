//! Stories that cross module borders, one file per story.
#![allow(clippy::disallowed_methods)] // stories happen in real time

mod harness;
mod stock_daemon;
mod try_out;
