//! Queue threads over real rings: many maps, task management over threads,
//! events.
#![allow(clippy::disallowed_methods)] // reactors are watched in real time

mod events;
mod managing;
mod maps;
mod orders;
mod rig;
