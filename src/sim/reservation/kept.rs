//! Registrations in words, to be kept where an array is not always served: a
//! line for what belongs to the LU, one for each registration, one for the
//! reservation.

use std::fmt::Write;

use super::{Registration, Reservations, Reserved};
use crate::scsi::reservation::{Key, Type};
use crate::sim::{Array, ItNexus, LuId, RESERVATION_TYPES};

impl Reservations {
    /// Counts every change of what [`Reservations::to_words`] says.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All that there is, for [`Reservations::from_words`].
    pub fn to_words(&self) -> String {
        let mut text = format!("generation {} aptpl {}\n", self.generation, self.aptpl);
        for Registration { nexus: ItNexus { initiator, port }, key } in &self.registrations {
            let _ = writeln!(text, "registered {initiator} {port} {key}");
        }
        if let Some(Reserved { kind, holder: ItNexus { initiator, port } }) = self.held {
            let word = RESERVATION_TYPES.iter().find(|row| row.0 == kind).map_or("", |row| row.1);
            let _ = writeln!(text, "held {initiator} {port} {word}");
        }
        text
    }

    /// What was there when [`Reservations::to_words`] said so.
    ///
    /// # Errors
    /// The first line that was never said, or belongs to no state that can be.
    pub fn from_words(text: &str) -> Result<Reservations, String> {
        let mut of = Reservations::default();
        for line in text.lines() {
            of.take(line).ok_or_else(|| format!("'{line}' is nothing that was kept"))?;
        }
        let held = of.held.map(|held| held.holder);
        if held.is_some_and(|holder| of.key_of(holder).is_none()) && !of.is_of_all() {
            return Err("who holds is not registered".to_owned());
        }
        Ok(of)
    }

    fn is_of_all(&self) -> bool {
        let all = self.held.is_some_and(|held| held.kind.is_of_all_registrants());
        all && !self.registrations.is_empty()
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let nexus = |initiator: &str, port: &str| {
            Some(ItNexus { initiator: initiator.parse().ok()?, port: port.parse().ok()? })
        };
        match words[..] {
            ["generation", generation, "aptpl", aptpl] => {
                self.generation = generation.parse().ok()?;
                self.aptpl = aptpl.parse().ok()?;
            }
            ["registered", initiator, port, key] => {
                let digits = key.strip_prefix("0x")?;
                let key = u64::from_str_radix(digits, 16).ok().filter(|key| *key != 0).map(Key)?;
                let nexus = nexus(initiator, port).filter(|nexus| self.key_of(*nexus).is_none())?;
                self.registrations.push(Registration { nexus, key });
            }
            ["held", initiator, port, word] => {
                let kind: Type = RESERVATION_TYPES.iter().find(|row| row.1 == word)?.0;
                self.held = Some(Reserved { kind, holder: nexus(initiator, port)? });
            }
            _ => return None,
        }
        Some(())
    }
}

impl Array {
    /// Before anything else: what was registered with an LU when it was served
    /// last.
    ///
    /// # Panics
    /// If there is no such LU.
    pub fn restore(&mut self, lu: LuId, reservations: Reservations) {
        self.lu(lu).reservations = reservations;
    }
}
