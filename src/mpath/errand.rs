//! One command about reservations, by one path, to its end
//! (`Effect::Reserve`).
//!
//! A generator, as checkers are: whoever owns the path carries its probes out
//! and tells the guest's attentions of every unit attention that answers one
//! (`scsi::attention`); the command is repeated then, because the LU has not
//! carried it out. So is one whose answer did not fit. Nothing else is: what
//! may have been executed is for the engine to find out (law 3), and after a
//! unit attention that questions where the path leads another LU would carry
//! out the repetition (law 2).

use super::probe::{self, Probe, Step, Transfer};
use super::reservation::{Answer, Ask};
use crate::io::{Completion, ErrnoFrom};
use crate::scsi::reservation::{self, InAction, OutAction};
use crate::scsi::sense::{Key, SenseCode};
use crate::scsi::status::{HostByte, Status};

/// Unit attentions in a row: a path that comes back has a few to tell, an LU
/// that never ends is broken.
const ATTENTIONS: u8 = 32;
/// First allocation length: the keys of 500 nexuses.
const ALLOCATION: u16 = 4096;

/// See the module.
#[derive(Clone, Debug)]
pub struct Errand {
    ask: Ask,
    allocation: u16,
    attentions: u8,
}

impl Errand {
    /// To be begun.
    pub fn new(ask: Ask) -> Errand {
        Errand { ask, allocation: ALLOCATION, attentions: 0 }
    }

    /// What it is about.
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// The first move.
    pub fn begin(&self) -> Step<Answer> {
        Step::Issue(match &self.ask {
            Ask::In(action) => {
                Probe::reading(action.cdb(self.allocation), usize::from(self.allocation))
            }
            Ask::Out(out) => {
                Probe::Command { cdb: out.cdb(), transfer: Transfer::Out(out.list().to_vec()) }
            }
        })
    }

    /// The next one.
    pub fn on_answer(&mut self, answer: &probe::Answer) -> Step<Answer> {
        let probe::Answer::Completed { completion, data, .. } = answer else {
            // Nobody asked for a fact.
            let completion = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::EINVAL };
            return Step::Done(Answer { completion, data: Vec::new() });
        };
        if is_repeatable(completion) && self.attentions < ATTENTIONS {
            self.attentions += 1;
            return self.begin();
        }
        let (completion, action) = match (self.ask, is_good(completion)) {
            (Ask::In(action), true) => (Completion::Good, Some(action)),
            (Ask::Out(_), true) => (Completion::Good, None),
            (_, false) => (*completion, None),
        };
        let Some(action) = action else {
            return Step::Done(Answer { completion, data: Vec::new() });
        };
        let whole = whole_length(action, data).map(|len| u16::try_from(len).unwrap_or(u16::MAX));
        match whole {
            // It was cut by us; if it was not, asking for more brings no more.
            Some(len) if len > self.allocation && data.len() == usize::from(self.allocation) => {
                self.allocation = len;
                self.begin()
            }
            _ => Step::Done(Answer { completion, data: data.clone() }),
        }
    }
}

/// When the guest was last known to be registered, by the clock of its unit
/// attentions: what paths have told before that of the loss of a registration was
/// of another (`scsi::attention::Attentions::seen`). What was told since the
/// command was *sent* that shows it, or has registered the guest, may be of it: for
/// the last time, where a unit attention had it repeated.
#[derive(Clone, Debug, Default)]
pub struct LastSeen {
    /// The last command, and when it was sent.
    asked: Option<(u32, Ask, u64)>,
    /// When the last READ KEYS that went well was sent.
    read: u64,
    /// When what was answered last shows how it was.
    shown: u64,
    /// A path was registered since the keys were read last: in an array that has
    /// one registration for all ports the others have that, too.
    entered: bool,
    seen: u64,
}

impl LastSeen {
    /// A command is sent now.
    pub fn asks(&mut self, job: u32, ask: Ask, now: u64) {
        self.asked = Some((job, ask, now));
        match ask {
            Ask::In(InAction::ReadKeys) => self.entered = false,
            Ask::Out(out) => self.entered |= out.action == OutAction::RegisterAndIgnore,
            Ask::In(_) => {}
        }
    }

    /// It was sent once more: what has met a unit attention was not carried out, and
    /// what the path has told by that came before what is carried out now.
    pub fn sent(&mut self, job: u32, now: u64) {
        if let Some((_, _, sent)) = self.asked.as_mut().filter(|asked| asked.0 == job) {
            *sent = now;
        }
    }

    /// It has ended. (One that the engine has given up is of no account.)
    pub fn answered(&mut self, job: u32, completion: &Completion) {
        let Some((_, ask, sent)) = self.asked.filter(|asked| asked.0 == job) else { return };
        let good = is_good(completion);
        match ask {
            Ask::In(InAction::ReadKeys) if good => (self.read, self.shown) = (sent, sent),
            Ask::In(_) => self.shown = self.read,
            Ask::Out(out) => {
                self.shown = sent;
                // REGISTER of a key by itself succeeds where it is registered.
                let renews = out.action == OutAction::Register && out.key == out.action_key;
                if renews && good && !out.key.is_none() && !self.entered {
                    self.seen = sent;
                }
            }
        }
    }

    /// The engine has found it registered by what was answered last.
    pub fn registered(&mut self) {
        self.seen = self.shown;
    }

    /// See the type.
    pub fn moment(&self) -> u64 {
        self.seen
    }
}

/// How long the whole answer is, where `data` has less of it.
fn whole_length(action: InAction, data: &[u8]) -> Option<usize> {
    match action {
        InAction::ReadKeys => reservation::keys(data).err(),
        InAction::ReadReservation => reservation::reservation(data).err(),
        InAction::ReadFullStatus => reservation::full_status(data).err(),
        InAction::ReportCapabilities => None,
    }
}

/// Met by a unit attention, and led to the same LU all the same.
fn is_repeatable(completion: &Completion) -> bool {
    match completion {
        Completion::Scsi { status: Status::CHECK_CONDITION, host: HostByte::OK, sense, .. } => {
            let told = |code: SenseCode| code.key == Key::UnitAttention;
            sense.code().is_some_and(|code| told(code) && !code.questions_identity())
        }
        _ => false,
    }
}

/// Less than the allocation length is the normal case.
fn is_good(completion: &Completion) -> bool {
    match completion {
        Completion::Good | Completion::Short(_) => true,
        Completion::Scsi { status, host, sense, .. } => {
            *status == Status::GOOD && *host == HostByte::OK && sense.is_empty()
        }
        Completion::Errno { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::reservation::{Key as PrKey, Out, OutAction, encode_keys};
    use crate::scsi::sense::Sense;
    use std::time::Duration;

    fn ended(completion: Completion, data: Vec<u8>) -> probe::Answer {
        probe::Answer::Completed { completion, data, took: Duration::ZERO }
    }

    fn told(code: SenseCode) -> Completion {
        let (status, host) = (Status::CHECK_CONDITION, HostByte::OK);
        Completion::Scsi { status, host, sense: Sense::fixed(code), residual: 0 }
    }

    fn issued(step: Step<Answer>) -> Probe {
        match step {
            Step::Issue(probe) => probe,
            Step::Done(answer) => panic!("ended: {answer:?}"),
        }
    }

    fn done(step: Step<Answer>) -> Answer {
        match step {
            Step::Done(answer) => answer,
            Step::Issue(probe) => panic!("not ended: {probe:?}"),
        }
    }

    fn register() -> Errand {
        Errand::new(Ask::Out(Out::new(OutAction::Register, PrKey::NONE, PrKey(7))))
    }

    /// READ KEYS of an LU with so many registrations.
    fn read(errand: &mut Errand, keys: usize) -> Step<Answer> {
        let Step::Issue(Probe::Command { transfer: Transfer::In(room), .. }) = errand.begin()
        else {
            panic!("READ KEYS takes data");
        };
        let mut all = encode_keys(3, &vec![PrKey(1); keys]);
        let left = room.saturating_sub(all.len());
        all.truncate(room);
        let completion = Completion::Short(room - left);
        errand.on_answer(&ended(completion, all))
    }

    #[test]
    fn what_is_told_while_a_key_is_being_registered_may_be_of_its_loss() {
        let renewal = Ask::Out(Out::new(OutAction::Register, PrKey(7), PrKey(7)));
        let lost = told(SenseCode::INVALID_FIELD_IN_CDB);
        let mut seen = LastSeen::default();
        seen.asks(1, *register().ask(), 10);
        seen.answered(1, &Completion::Good);
        seen.registered();
        assert_eq!(seen.moment(), 10, "when it was sent, not when it was answered");
        // Registered still, by a later command that says so; not by one that fails.
        seen.asks(2, renewal, 20);
        seen.answered(2, &Completion::Good);
        assert_eq!(seen.moment(), 20);
        seen.asks(3, renewal, 30);
        seen.answered(2, &Completion::Good);
        seen.answered(3, &lost);
        assert_eq!(seen.moment(), 20);
        // What was registered just now may be all that the others have.
        let entry = Ask::Out(Out::new(OutAction::RegisterAndIgnore, PrKey::NONE, PrKey(7)));
        for (job, ask) in [(6, entry), (7, renewal)] {
            seen.asks(job, ask, 35);
            seen.answered(job, &Completion::Good);
        }
        assert_eq!(seen.moment(), 20);
        // At the start, or where it was unknown: READ KEYS has shown it, not what
        // was read afterwards.
        seen.asks(4, Ask::In(InAction::ReadKeys), 40);
        seen.answered(4, &Completion::Good);
        seen.asks(5, Ask::In(InAction::ReadReservation), 50);
        seen.answered(5, &Completion::Good);
        assert_eq!(seen.moment(), 20);
        seen.registered();
        assert_eq!(seen.moment(), 40);
    }

    #[test]
    fn what_the_path_itself_tells_of_an_earlier_loss_is_no_word_of_the_registration_made_then() {
        let mut seen = LastSeen::default();
        seen.asks(1, *register().ask(), 10);
        // It has met 06/2A/05, at 11, and was not carried out.
        seen.sent(1, 12);
        seen.answered(1, &Completion::Good);
        seen.registered();
        assert_eq!(seen.moment(), 12);
        // (A thread may yet be at one that the engine has given up.)
        seen.asks(2, *register().ask(), 20);
        seen.sent(1, 25);
        seen.answered(2, &Completion::Good);
        seen.registered();
        assert_eq!(seen.moment(), 20);
    }

    #[test]
    fn a_unit_attention_is_passed_over_and_the_same_command_sent_again() {
        let mut errand = register();
        let first = issued(errand.begin());
        let again = errand.on_answer(&ended(told(SenseCode::REGISTRATIONS_PREEMPTED), Vec::new()));
        assert_eq!(issued(again), first);
        let answer = done(errand.on_answer(&ended(Completion::Good, Vec::new())));
        assert_eq!(answer.completion, Completion::Good);
    }

    #[test]
    fn unit_attentions_without_end_end() {
        let mut errand = register();
        let attention = told(SenseCode::RESERVATIONS_RELEASED);
        for _ in 0..ATTENTIONS {
            issued(errand.on_answer(&ended(attention, Vec::new())));
        }
        let answer = done(errand.on_answer(&ended(attention, Vec::new())));
        assert_eq!(answer.completion, attention);
    }

    #[test]
    fn what_may_lead_to_another_lu_now_is_not_repeated_there() {
        for code in [
            SenseCode::POWER_ON_OR_RESET,
            SenseCode::NEXUS_LOSS,
            SenseCode::INQUIRY_DATA_CHANGED,
            SenseCode::REPORTED_LUNS_CHANGED,
        ] {
            let answer = done(register().on_answer(&ended(told(code), Vec::new())));
            assert_eq!(answer.completion, told(code));
        }
    }

    #[test]
    fn what_may_have_been_executed_is_not_repeated() {
        let lost =
            |host, status| Completion::Scsi { status, host, sense: Sense::EMPTY, residual: 24 };
        for completion in [
            lost(HostByte::TRANSPORT_DISRUPTED, Status::GOOD),
            lost(HostByte::TIME_OUT, Status::GOOD),
            lost(HostByte::OK, Status::RESERVATION_CONFLICT),
            lost(HostByte::OK, Status::BUSY),
            told(SenseCode::INVALID_FIELD_IN_CDB),
            Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::EIO },
        ] {
            let answer = done(register().on_answer(&ended(completion, Vec::new())));
            assert_eq!(answer, Answer { completion, data: Vec::new() });
        }
    }

    #[test]
    fn an_answer_that_was_cut_is_asked_for_with_room_enough() {
        let mut errand = Errand::new(Ask::In(InAction::ReadKeys));
        assert!(matches!(read(&mut errand, 600), Step::Issue(_)));
        let answer = done(read(&mut errand, 600));
        assert_eq!(answer.completion, Completion::Good);
        assert_eq!(reservation::keys(&answer.data).unwrap().what.len(), 600);
        // It grows meanwhile: once more.
        let mut errand = Errand::new(Ask::In(InAction::ReadKeys));
        assert!(matches!(read(&mut errand, 600), Step::Issue(_)));
        assert!(matches!(read(&mut errand, 700), Step::Issue(_)));
        assert_eq!(reservation::keys(&done(read(&mut errand, 700)).data).unwrap().what.len(), 700);
    }

    #[test]
    fn an_array_that_says_more_than_it_has_is_not_asked_for_ever() {
        let mut errand = Errand::new(Ask::In(InAction::ReadKeys));
        let mut lie = encode_keys(1, &[PrKey(1)]);
        lie[4] = 0xff;
        let answer = done(errand.on_answer(&ended(Completion::Good, lie.clone())));
        assert_eq!(answer.data, lie);
        // As many as can be asked for are all that is asked for.
        assert!(matches!(read(&mut errand, 60_000), Step::Issue(_)));
        let answer = done(read(&mut errand, 60_000));
        assert_eq!(answer.data.len(), usize::from(u16::MAX));
    }
}
