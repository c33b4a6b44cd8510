//! Random work over several paths with random faults, against a shadow copy.
//!
//! The shadow applies each task when it ends, in the order of the ends, and
//! for a task that a cut returned, what the cut's mode says. One byte stands
//! for one block: every block written is uniform.

use proptest::prelude::*;

use super::*;
use crate::scsi::unmap;

const BLOCKS: u64 = 64;
const PATHS: usize = 3;
const GRANULE: u64 = 4;
const ALIGNMENT: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Read,
    Write(u8),
    WriteSame { fill: u8, unmap: bool, ndob: bool },
    CompareAndWrite { old: u8, new: u8 },
    Verify(u8),
    Unmap,
    Flush,
}

#[derive(Clone, Debug)]
enum Step {
    Submit { path: usize, work: Work, lba: u64, blocks: u64 },
    Wait(u64),
    Inject { path: usize, fault: Fault },
}

fn work() -> impl Strategy<Value = Work> {
    prop_oneof![
        4 => Just(Work::Read),
        4 => (1u8..).prop_map(Work::Write),
        2 => (1u8..4).prop_map(Work::Write),
        3 => (0u8..4, 0u8..4).prop_map(|(old, new)| Work::CompareAndWrite { old, new }),
        2 => (0u8..4).prop_map(Work::Verify),
        2 => (any::<u8>(), any::<bool>(), any::<bool>())
            .prop_map(|(fill, unmap, ndob)| Work::WriteSame { fill, unmap, ndob }),
        2 => Just(Work::Unmap),
        1 => Just(Work::Flush),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => prop::sample::select(vec![CutMode::Before, CutMode::StatusLost, CutMode::Half])
            .prop_map(Fault::Cut),
        4 => Just(Fault::Plug),
        1 => Just(Fault::Hang),
        1 => (0u64..20).prop_map(|n| Fault::Delay(ms(n))),
        1 => (0u32..3).prop_map(|count| Fault::Sense { code: code(2, 4, 0x0b), count }),
        1 => (0u32..3).prop_map(|count| Fault::HostByte { host: HostByte::SOFT_ERROR, count }),
        1 => (0u32..3).prop_map(|count| Fault::Busy { count }),
        1 => (0u32..3).prop_map(|count| Fault::TaskSetFull { count }),
        1 => Just(Fault::LuReset),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        // Extents reach beyond the LU now and then.
        6 => (0..PATHS, work(), 0..BLOCKS, 0u64..18)
            .prop_map(|(path, work, lba, blocks)| Step::Submit { path, work, lba, blocks }),
        2 => (0u64..8).prop_map(Step::Wait),
        1 => (0..PATHS, fault()).prop_map(|(path, fault)| Step::Inject { path, fault }),
    ]
}

fn config() -> LuConfig {
    LuConfig {
        unmap_granularity: u32::try_from(GRANULE).unwrap(),
        unmap_alignment: u32::try_from(ALIGNMENT).unwrap(),
        blocks: BLOCKS,
        ..small()
    }
}

fn cdb_of(work: Work, extent: Extent) -> (Cdb, Vec<u8>, usize) {
    let bytes = usize::try_from(extent.blocks.0).unwrap() * BLOCK;
    match work {
        Work::Read => (Cdb::read(extent).unwrap(), vec![], bytes),
        Work::Write(fill) => (Cdb::write(extent, fill & 1 == 0).unwrap(), vec![fill; bytes], 0),
        Work::WriteSame { fill, unmap, ndob } => {
            let extent = Extent::new(extent.lba.0, extent.blocks.0.max(1));
            let block = if ndob { vec![] } else { vec![fill; BLOCK] };
            (Cdb::write_same_16(extent, unmap, ndob).unwrap(), block, 0)
        }
        Work::CompareAndWrite { old, new } => {
            let mut cdb = [0; 16];
            cdb[0] = 0x89;
            cdb[2..10].copy_from_slice(&extent.lba.0.to_be_bytes());
            cdb[13] = u8::try_from(extent.blocks.0).unwrap();
            (raw(&cdb), [vec![old; bytes], vec![new; bytes]].concat(), 0)
        }
        Work::Verify(fill) => {
            let [high, low] = u16::try_from(extent.lba.0).unwrap().to_be_bytes();
            let blocks = u8::try_from(extent.blocks.0).unwrap();
            (raw(&[0x2f, 0x02, 0, 0, high, low, 0, 0, blocks]), vec![fill; bytes], 0)
        }
        Work::Unmap => {
            let mut list = Vec::new();
            unmap::encode(&[extent], &mut list).unwrap();
            (Cdb::unmap(unmap::list_len(1).unwrap()), list, 0)
        }
        Work::Flush => (Cdb::synchronize_cache_10(), vec![], 0),
    }
}

/// A task in the eyes of the shadow.
#[derive(Clone, Copy, Debug)]
struct Flight {
    path: usize,
    work: Work,
    extent: Extent,
    fate: Fate,
}

/// What must become of a task.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Executed, or refused by the LU for what it asks.
    Lu,
    /// Ends with an injected sense or a unit attention.
    Sense(SenseCode),
    /// Ends with this status, not executed.
    Status(Status),
    /// Ends with this host byte, not executed.
    Host(HostByte),
    /// Was pending with fate `Lu` when its path was cut.
    Cut(CutMode),
}

/// A path in the eyes of the shadow; counts of 0 mean for ever.
#[derive(Clone, Copy, Debug, Default)]
struct Path {
    cut: bool,
    hung: bool,
    attention: Option<SenseCode>,
    sense: Option<(SenseCode, u32)>,
    host: Option<(HostByte, u32)>,
    status: Option<(Status, u32)>,
}

fn use_up<T>(slot: &mut Option<(T, u32)>) {
    match slot {
        Some((_, 1)) => *slot = None,
        Some((_, count)) => *count = count.saturating_sub(1),
        None => {}
    }
}

impl Path {
    fn fate_of_next(&mut self) -> Fate {
        if self.cut {
            return Fate::Host(HostByte::NO_CONNECT);
        }
        if self.hung {
            return Fate::Host(HostByte::TIME_OUT);
        }
        if let Some((host, _)) = self.host {
            use_up(&mut self.host);
            return Fate::Host(host);
        }
        if let Some((status, _)) = self.status {
            use_up(&mut self.status);
            return Fate::Status(status);
        }
        if let Some(attention) = self.attention.take() {
            return Fate::Sense(attention);
        }
        if let Some((sense, _)) = self.sense {
            use_up(&mut self.sense);
            return Fate::Sense(sense);
        }
        Fate::Lu
    }

    fn apply(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(_) => self.cut = true,
            Fault::Hang => self.hung = true,
            Fault::Sense { code, count } => self.sense = Some((code, count)),
            Fault::HostByte { host, count } => self.host = Some((host, count)),
            Fault::Busy { count } => self.status = Some((Status::BUSY, count)),
            Fault::TaskSetFull { count } => self.status = Some((Status::TASK_SET_FULL, count)),
            Fault::Plug => {
                *self = Path { attention: Some(code(6, 0x29, 7)), ..Path::default() };
            }
            _ => {}
        }
    }
}

struct Shadow {
    blocks: Vec<u8>,
    /// By tag; `None` once ended.
    flights: Vec<Option<Flight>>,
    paths: [Path; PATHS],
}

impl Shadow {
    fn submit(&mut self, path: usize, work: Work, extent: Extent) {
        let fate = self.paths[path].fate_of_next();
        self.flights.push(Some(Flight { path, work, extent, fate }));
    }

    fn inject(&mut self, path: usize, fault: Fault) {
        self.paths[path].apply(fault);
        if fault == Fault::LuReset {
            for path in &mut self.paths {
                path.attention = Some(code(6, 0x29, 3)); // instead of a nexus loss
            }
            for flight in self.flights.iter_mut().flatten() {
                flight.fate = Fate::Host(HostByte::RESET);
            }
        }
        for flight in self.flights.iter_mut().flatten().filter(|flight| flight.path == path) {
            match (fault, flight.fate) {
                (Fault::Cut(mode), Fate::Lu) => flight.fate = Fate::Cut(mode),
                (Fault::Cut(_), _) => flight.fate = Fate::Host(HostByte::TRANSPORT_DISRUPTED),
                (Fault::Hang, _) => flight.fate = Fate::Host(HostByte::TIME_OUT),
                _ => {}
            }
        }
    }

    fn end(&mut self, done: &Done) -> Result<(), TestCaseError> {
        let index = usize::try_from(done.tag).unwrap();
        let flight = self.flights[index].take();
        prop_assert!(flight.is_some(), "task {} ended twice", done.tag);
        let Some(flight) = flight else { return Ok(()) };
        match flight.fate {
            Fate::Lu if takes(&flight) && !self.is_as_expected(&flight) => {
                prop_assert_eq!(sense_of(done), Some(code(0xe, 0x1d, 0)));
            }
            Fate::Lu if takes(&flight) => {
                prop_assert_eq!(done.completion, Completion::Good);
                self.apply(&flight, false);
                if flight.work == Work::Read {
                    self.compare(flight.extent, &done.data_in)?;
                }
            }
            Fate::Lu => {
                let key = sense_of(done).map(|code| code.key);
                prop_assert_eq!(key, Some(Key::IllegalRequest));
            }
            Fate::Sense(sense) => prop_assert_eq!(sense_of(done), Some(sense)),
            Fate::Status(wanted) => {
                let status = match done.completion {
                    Completion::Scsi { status, .. } => status,
                    _ => Status::GOOD,
                };
                prop_assert_eq!(status, wanted);
            }
            Fate::Host(host) => prop_assert_eq!(host_of(done), host),
            Fate::Cut(mode) => {
                prop_assert_eq!(host_of(done), HostByte::TRANSPORT_DISRUPTED);
                if mode != CutMode::Before && takes(&flight) {
                    self.apply(&flight, mode == CutMode::Half);
                }
            }
        }
        Ok(())
    }

    /// Whether a command that compares finds what it asks for.
    fn is_as_expected(&self, flight: &Flight) -> bool {
        let (Work::Verify(old) | Work::CompareAndWrite { old, .. }) = flight.work else {
            return true;
        };
        let start = usize::try_from(flight.extent.lba.0).unwrap();
        let len = usize::try_from(flight.extent.blocks.0).unwrap();
        self.blocks[start..start + len].iter().all(|block| *block == old)
    }

    fn compare(&self, extent: Extent, data: &[u8]) -> Result<(), TestCaseError> {
        prop_assert_eq!(data.len() / BLOCK, usize::try_from(extent.blocks.0).unwrap());
        let start = usize::try_from(extent.lba.0).unwrap();
        for (block, wanted) in data.chunks(BLOCK).zip(&self.blocks[start..]) {
            prop_assert!(block.iter().all(|byte| byte == wanted), "not what was written last");
        }
        Ok(())
    }

    fn apply(&mut self, flight: &Flight, half: bool) {
        let (lba, len) = (flight.extent.lba.0, flight.extent.blocks.0);
        let part = |len| if half { len / 2 } else { len };
        match flight.work {
            Work::Read | Work::Flush | Work::Verify(_) => {}
            // Whole or not at all.
            Work::CompareAndWrite { new, .. } if self.is_as_expected(flight) => {
                self.fill(lba, len, new);
            }
            Work::CompareAndWrite { .. } => {}
            Work::Write(fill) => self.fill(lba, part(len), fill),
            Work::WriteSame { fill, ndob, .. } => {
                self.fill(lba, part(len.max(1)), if ndob { 0 } else { fill });
            }
            Work::Unmap => {
                for granule in (ALIGNMENT..BLOCKS).step_by(usize::try_from(GRANULE).unwrap()) {
                    if granule >= lba && granule + GRANULE <= lba + len {
                        self.fill(granule, GRANULE, 0);
                    }
                }
            }
        }
    }

    fn fill(&mut self, lba: u64, len: u64, fill: u8) {
        let range = usize::try_from(lba).unwrap()..usize::try_from(lba + len).unwrap();
        self.blocks[range].fill(fill);
    }
}

/// Whether the LU takes a task for what it asks.
fn takes(flight: &Flight) -> bool {
    let Extent { lba, blocks } = flight.extent;
    let (blocks, limit) = match flight.work {
        Work::Flush => return true,
        Work::WriteSame { .. } => (blocks.0.max(1), 32),
        Work::Unmap => (blocks.0, 32),
        Work::CompareAndWrite { .. } => (blocks.0, 4),
        Work::Read | Work::Write(_) | Work::Verify(_) => (blocks.0, 16),
    };
    lba.0 + blocks <= BLOCKS && blocks <= limit
}

/// Drives `array` through the steps, calling `before` before each; returns a
/// time by which every task has ended.
fn drive(
    array: &mut Array,
    steps: &[Step],
    mut before: impl FnMut(&mut Array, Time, &Step) -> Result<(), TestCaseError>,
) -> Result<Time, TestCaseError> {
    let paths: Vec<_> = (0..PATHS).map(|i| array.add_nexus(&format!("path{i}"))).collect();
    array.set_latency(ms(3));
    let (mut now, mut tag) = (Time(0), 0);
    for step in steps {
        before(array, now, step)?;
        match *step {
            Step::Submit { path, work, lba, blocks } => {
                let (cdb, data_out, data_in_max) = cdb_of(work, Extent::new(lba, blocks));
                let nexus = paths[path];
                let timeout = ms(100);
                array.submit(now, Task { nexus, tag, cdb, data_out, data_in_max, timeout });
                tag += 1;
            }
            Step::Wait(time) => now = now + ms(time),
            Step::Inject { path, fault } => array.inject(now, paths[path], fault),
        }
    }
    Ok(now + ms(1000))
}

fn array() -> Array {
    let medium = MemoryMedium::new(BLOCKS * BLOCK as u64);
    Array::new(config(), Box::new(medium))
}

proptest! {
    /// Every task ends exactly once, as its path's faults demand, and the
    /// medium holds what the ended tasks wrote: no more, no less.
    #[test]
    fn array_agrees_with_its_shadow(steps in prop::collection::vec(step(), 1..120)) {
        let mut array = array();
        let mut shadow = Shadow {
            blocks: vec![0; usize::try_from(BLOCKS).unwrap()],
            flights: Vec::new(),
            paths: [Path::default(); PATHS],
        };
        let mut done = Vec::new();
        let end = drive(&mut array, &steps, |array, now, step| {
            array.poll(now, &mut done);
            done.drain(..).try_for_each(|done| shadow.end(&done))?;
            prop_assert!(array.next_deadline().is_none_or(|deadline| deadline > now));
            match *step {
                Step::Submit { path, work, lba, blocks } => {
                    shadow.submit(path, work, Extent::new(lba, blocks));
                }
                Step::Inject { path, fault } => shadow.inject(path, fault),
                Step::Wait(_) => {}
            }
            Ok(())
        })?;
        array.poll(end, &mut done);
        done.drain(..).try_for_each(|done| shadow.end(&done))?;
        prop_assert!(shadow.flights.iter().all(Option::is_none), "every task has ended");
        prop_assert_eq!(array.next_deadline(), None);

        let fresh = array.add_nexus("fresh");
        for lba in (0..BLOCKS).step_by(16) {
            let extent = Extent::new(lba, 16);
            let (cdb, data_out, data_in_max) = cdb_of(Work::Read, extent);
            let task = Task { nexus: fresh, tag: lba, cdb, data_out, data_in_max, timeout: ms(100) };
            array.submit(end, task);
            array.poll(end + ms(3), &mut done);
            shadow.compare(extent, &done.remove(0).data_in)?;
        }
    }

    /// Same inputs, same outputs; and how often somebody polls is no input.
    #[test]
    fn array_is_deterministic_whatever_the_polling(
        steps in prop::collection::vec(step(), 1..120),
        polls in prop::collection::vec(any::<bool>(), 120),
    ) {
        let run = |polls: &[bool]| {
            let (mut array, mut done, mut polls) = (array(), Vec::new(), polls.iter());
            let end = drive(&mut array, &steps, |array, now, _| {
                if polls.next() == Some(&true) {
                    array.poll(now, &mut done);
                }
                Ok(())
            })?;
            array.poll(end, &mut done);
            Ok::<_, TestCaseError>(done)
        };
        let often = run(&vec![true; steps.len()])?;
        prop_assert_eq!(&often, &run(&vec![true; steps.len()])?);
        prop_assert_eq!(&often, &run(&polls)?);
        prop_assert_eq!(&often, &run(&[])?);
    }
}
