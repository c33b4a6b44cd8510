//! stub
use std::sync::Arc;

use super::Shared;
use super::units::View;
use crate::io::{Front, Outcome, Parsed, Request, Segment};

/// Parses and answers the requests of one queue thread.
#[derive(Clone, Debug)]
pub struct ScsiFront {
    shared: Arc<Shared>,
    view: View,
}

impl ScsiFront {
    pub(super) fn new(shared: Arc<Shared>) -> ScsiFront {
        ScsiFront { shared, view: View::new() }
    }
}

impl Front for ScsiFront {
    fn parse(&mut self, _: &[Segment], _: &[Segment], _: &mut Request) -> Parsed {
        self.view.refresh(&self.shared.units);
        Parsed::Answered { used_len: 0 }
    }

    fn finish(&mut self, _: &mut Request, _: &Outcome) -> u32 {
        0
    }
}
