//! Stand-ins until the engine has these.
use super::effect::Effects;
use super::policy::Policy;
use super::{MapError, Multipath};
use crate::io::Time;

#[allow(missing_docs, clippy::unused_self, clippy::missing_errors_doc)]
impl Multipath {
    pub fn disable_queueing(&mut self, _: Time, _: &mut Effects) {}
    pub fn restore_queueing(&mut self, _: Time, _: &mut Effects) {}
    pub fn set_marginal(
        &mut self,
        _: Time,
        _: &str,
        _: bool,
        _: &mut Effects,
    ) -> Result<(), MapError> {
        Ok(())
    }
    pub fn set_policy(&mut self, _: Time, policy: Policy, _: &mut Effects) {
        self.policy = policy;
    }
}
