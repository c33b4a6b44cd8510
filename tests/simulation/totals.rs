//! Counts over a run, to prove that the schedules reach something.

use std::ops::AddAssign;

macro_rules! totals {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts over a run.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Totals {
            $($(#[$doc])* pub(crate) $name: u64,)*
        }

        impl AddAssign for Totals {
            fn add_assign(&mut self, other: Totals) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }
        }
    };
}

totals! {
    /// Events handled: a request, a completion, a message between threads, a
    /// timer, an answer of a checking thread, a fault, an administrator's word.
    steps,
    requests,
    errors,
    retries,
    path_failures,
    reinstated,
    held,
    hung,
    abandoned,
    resized,
    /// Uevents, devices deleted, good commands that a block layer ended with EIO.
    host_news,
    deleted,
    lies,
    // Of guests that compose their own commands:
    /// Task management functions that end tasks, and tasks they ended.
    functions,
    aborted,
    /// Events of the LU, and those the guest heard of.
    events,
    heard,
    /// COMPARE AND WRITE: done, certainly not done, unknown.
    swapped,
    not_swapped,
    ambiguous,
    // Of guests that reserve:
    /// PERSISTENT RESERVE OUT; commands of the engine's that follow.
    orders,
    asked,
    /// Paths to be registered that waited for the queue thread.
    entries_held,
    /// How they ended: RESERVE, PREEMPT of others' keys and of its own, and
    /// others that went well; with a conflict; otherwise.
    reserved,
    preempts,
    self_preempts,
    carried_out,
    refused,
    unclear,
    /// Tables that hold the guest's I/O.
    suspended,
    /// What the other host did, and how often that has fenced the guest.
    foreign,
    fenced,
    /// What the engine found out or did by itself.
    found_fenced,
    repaired,
    taken_over,
    barred,
    recalled,
    /// The array has forgotten registrations, and lost its power.
    forgotten,
    power_losses,
    /// Answers compared to those of one nexus.
    compared,
    // Of the engine:
    /// I/O moved to another group.
    switches,
    /// Target port groups were seen to change their state.
    access_changes,
    activations,
    activated,
    /// Paths found unreliable.
    marginal,
    samples,
    readings,
    /// `set map`.
    reconfigured,
    /// Answers of checking threads that came too late or did not come.
    late,
    /// When the run ended, in virtual nanoseconds: tells two runs apart.
    end,
}
