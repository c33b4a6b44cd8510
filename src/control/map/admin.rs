//! What an administrator does to a map and its paths.
//!
//! Each returns once the engine knows, with the table that every queue thread
//! must have acknowledged before the administrator is told that it is done.

use super::{JoinError, Map, can_be_checked};
use crate::io::Time;
use crate::mpath::effect::Effects;
use crate::mpath::policy::NoPathRetry;
use crate::mpath::policy::keywords::{KeywordError, Setting};
use crate::mpath::snapshot::PathId;
use crate::mpath::{MapError, Multipath};

/// Why a setting cannot be changed.
#[derive(Debug, thiserror::Error)]
pub(in crate::control) enum SetError {
    /// See [`Setting`].
    #[error(transparent)]
    Keyword(#[from] KeywordError),
    /// `--expose paths`.
    #[error(
        "the guest sees the paths of this LUN and joins them itself: nothing is held for it, and \
         no_path_retry stays fail"
    )]
    NeverHeld,
    /// It is being removed; a path of it cannot be checked so.
    #[error(transparent)]
    Path(#[from] JoinError),
}

impl Map {
    /// One step of the engine, and what follows from it.
    pub(super) fn tell<T>(
        &mut self,
        now: Time,
        step: impl FnOnce(&mut Multipath, &mut Effects) -> T,
    ) -> T {
        let mut fx = Effects::new();
        let result = step(&mut self.engine, &mut fx);
        self.carry_out(now, fx);
        result
    }

    /// `fail path`.
    pub(in crate::control) fn fail_path(&mut self, now: Time, name: &str) -> Result<u64, MapError> {
        self.tell(now, |engine, fx| engine.fail_path(now, name, fx))?;
        Ok(self.generation())
    }

    /// `reinstate path`.
    pub(in crate::control) fn reinstate_path(
        &mut self,
        now: Time,
        name: &str,
    ) -> Result<PathId, MapError> {
        self.tell(now, |engine, fx| engine.reinstate_path(now, name, fx))?;
        Ok(self.engine.path_by_name(name)?.id)
    }

    /// `del path`.
    pub(in crate::control) fn remove_path(
        &mut self,
        now: Time,
        name: &str,
    ) -> Result<(PathId, u64), MapError> {
        let id = self.tell(now, |engine, fx| engine.remove_path(now, name, fx))?;
        Ok((id, self.generation()))
    }

    /// `setmarginal path`, `unsetmarginal path`.
    pub(in crate::control) fn set_marginal(
        &mut self,
        now: Time,
        name: &str,
        marginal: bool,
    ) -> Result<u64, MapError> {
        self.tell(now, |engine, fx| engine.set_marginal(now, name, marginal, fx))?;
        Ok(self.generation())
    }

    /// `unsetmarginal map`.
    pub(in crate::control) fn unset_every_marginal(&mut self, now: Time) -> Result<u64, MapError> {
        let topology = self.engine.topology();
        let marginal = topology.groups.iter().flat_map(|g| &g.paths).filter(|path| path.marginal);
        for path in marginal {
            self.set_marginal(now, &path.name, false)?;
        }
        Ok(self.generation())
    }

    /// `resize map M`.
    pub(in crate::control) fn read_size(&mut self, now: Time) {
        self.tell(now, |engine, fx| engine.prove_all(now, fx));
    }

    /// `switch map M group N`.
    pub(in crate::control) fn switch_group(&mut self, now: Time, n: u16) -> Result<u64, MapError> {
        self.tell(now, |engine, fx| engine.switch_group(now, n, fx))?;
        Ok(self.generation())
    }

    /// Number of the group in use.
    pub(in crate::control) fn group_in_use(&self) -> Option<u16> {
        let table = self.engine.table()?;
        table.groups.first().map(|group| group.number)
    }

    /// `restorequeueing` or `disablequeueing`.
    pub(in crate::control) fn switch_queueing(&mut self, now: Time, on: bool) -> u64 {
        self.tell(now, |engine, fx| match on {
            true => engine.restore_queueing(now, fx),
            false => engine.disable_queueing(now, fx),
        });
        self.generation()
    }

    /// `set map M KEYWORD VALUE`.
    pub(in crate::control) fn set(
        &mut self,
        now: Time,
        setting: &Setting,
    ) -> Result<u64, SetError> {
        if self.is_leaving() {
            return Err(JoinError::Leaving(self.name.clone()).into());
        }
        let mut policy = self.policy();
        setting.apply(&mut policy)?;
        let exposed = self.lun.as_ref().is_some_and(|lun| !lun.joined);
        if exposed && policy.no_path_retry != NoPathRetry::Fail {
            return Err(SetError::NeverHeld);
        }
        for (handle, _) in self.paths.values().filter_map(|path| path.open.as_ref()) {
            can_be_checked(handle, policy.checker)?;
        }
        if policy.checker_timeout != self.patience.check {
            self.patience.check = policy.checker_timeout;
            for (_, checking) in self.paths.values().filter_map(|path| path.open.as_ref()) {
                checking.set_timeout(policy.checker_timeout);
            }
        }
        self.tell(now, |engine, fx| engine.set_policy(now, policy, fx));
        Ok(self.generation())
    }
}
