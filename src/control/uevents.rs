//! The thread that hears which SCSI disks come and go, and what their LUs say.
//!
//! Reads the kernel's uevents and looks at sysfs; what it finds goes to the
//! control thread as [`DeviceNews`]. A uevent is taken as a hint to look, so
//! that a lost one costs time and nothing else. Where uevents cannot be had
//! (a container), or are not heard, sysfs is looked at once a second. Waits
//! for neither a device nor a command.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::mailbox::{Mail, Post};
use crate::host;
use crate::host::discover::{Disk, Disks, Found};
use crate::host::uevent::{SdevChange, Uevent};
use crate::sys::netlink::{LONGEST, UeventSocket};
use crate::sys::poll::{self, Interest, PollFd};

/// Between two looks where uevents say when to look.
const SELDOM: Duration = Duration::from_secs(30);
/// Where nothing says so.
const OFTEN: Duration = Duration::from_secs(1);
/// A look has found what no uevent told of so many times in a row: none will.
const UNHEARD: u32 = 2;
/// A storm of events becomes one look.
const GATHER: Duration = Duration::from_millis(5);

/// What has happened to SCSI disks, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DeviceNews {
    /// One is there now.
    Came(Disk),
    /// The one at this address is not.
    Went(String),
    /// The LU of the one at this address has said something; with what the
    /// kernel knows of it by now.
    Said(String, SdevChange, Option<Disk>),
    /// Somebody may have let go of some disk.
    Freed,
    /// Everything has been looked at: who is not there has gone, whatever was
    /// missed.
    Looked,
    /// No uevents are heard; sysfs is looked at instead. Why.
    Deaf(String),
}

/// Starts the thread; it ends with the process.
pub(super) fn start(post: Post) -> io::Result<()> {
    let thread = Thread {
        post,
        disks: Disks::of_host(),
        socket: UeventSocket::open(),
        buffer: vec![0; LONGEST],
        // The kernel tells the network namespaces of the machine only.
        unheard: if host::in_user_namespace() { UNHEARD } else { 0 },
    };
    std::thread::Builder::new().name("uevents".to_owned()).spawn(move || thread.run())?;
    Ok(())
}

struct Thread {
    post: Post,
    disks: Disks,
    socket: io::Result<UeventSocket>,
    buffer: Vec<u8>,
    /// Looks without an event that found something, in a row.
    unheard: u32,
}

impl Thread {
    fn run(mut self) {
        let mut news = self.look();
        news.push(DeviceNews::Looked);
        if let Err(why) = &self.socket {
            news.push(DeviceNews::Deaf(format!("no netlink socket for uevents: {why}")));
        } else if self.is_deaf() {
            let why = "uevents do not reach user namespaces (a container)";
            news.push(DeviceNews::Deaf(why.to_owned()));
        }
        loop {
            if !news.is_empty() {
                self.post.send(Mail::Devices(news));
            }
            news = self.wait();
        }
    }

    fn look(&mut self) -> Vec<DeviceNews> {
        let news = |found| match found {
            Found::Came(disk) => DeviceNews::Came(disk),
            Found::Went(hctl) => DeviceNews::Went(hctl),
        };
        self.disks.look().into_iter().map(news).collect()
    }

    fn is_deaf(&self) -> bool {
        self.unheard >= UNHEARD
    }

    /// Until something happens, or it is time to look.
    fn wait(&mut self) -> Vec<DeviceNews> {
        let Ok(socket) = &self.socket else {
            std::thread::sleep(OFTEN);
            return self.look();
        };
        let deaf = self.is_deaf();
        let mut fds = [PollFd::new(socket.as_fd(), Interest::READ)];
        let timeout = if deaf { OFTEN } else { SELDOM };
        match poll::wait(&mut fds, Some(timeout)) {
            Ok(0) => self.unasked(deaf),
            Ok(_) => {
                std::thread::sleep(GATHER);
                self.listen()
            }
            Err(error) => {
                log::error!("uevents: poll: {error}");
                std::thread::sleep(OFTEN);
                self.look()
            }
        }
    }

    /// A look that no uevent asked for.
    fn unasked(&mut self, deaf: bool) -> Vec<DeviceNews> {
        let mut news = self.look();
        if !deaf {
            self.unheard = if news.is_empty() { 0 } else { self.unheard + 1 };
            if self.unheard == UNHEARD {
                let why = "disks came or went and no uevent told of it (a container?)";
                news.push(DeviceNews::Deaf(why.to_owned()));
            }
            news.push(DeviceNews::Looked);
        }
        news
    }

    /// Everything that has been told.
    fn listen(&mut self) -> Vec<DeviceNews> {
        let Ok(socket) = &self.socket else { return Vec::new() };
        let mut heard = Heard::default();
        while heard.take(socket.receive(&mut self.buffer)) {}
        self.follow(heard)
    }

    /// What is to be told of that.
    fn follow(&mut self, heard: Heard) -> Vec<DeviceNews> {
        let Heard { moved, freed, lost, failed, mut said } = heard;
        if failed {
            std::thread::sleep(OFTEN);
        }
        if moved {
            self.unheard = 0; // a uevent has come, after all
        }
        let mut news = if moved || lost { self.look() } else { Vec::new() };
        if lost {
            news.push(DeviceNews::Looked);
        }
        said.dedup();
        for (hctl, change) in said {
            let disk = self.disks.again(&hctl);
            news.push(DeviceNews::Said(hctl, change, disk));
        }
        if freed || lost {
            news.push(DeviceNews::Freed);
        }
        news
    }
}

/// What a burst of messages comes to.
#[derive(Debug, Default)]
struct Heard {
    /// Disks may have come or gone.
    moved: bool,
    /// Somebody may have let go of one.
    freed: bool,
    /// There was more than could be heard.
    lost: bool,
    /// The socket does not work.
    failed: bool,
    /// What LUs have said, by the address of the device.
    said: Vec<(String, SdevChange)>,
}

impl Heard {
    /// Takes what came from the socket; whether to ask it again.
    fn take(&mut self, received: io::Result<Option<&[u8]>>) -> bool {
        match received {
            Ok(None) => return false,
            Ok(Some(message)) => {
                let Some(event) = Uevent::parse(message) else { return true };
                self.moved |= event.moves_disks();
                self.freed |= event.may_free_disks();
                if let Some(hctl) = event.hctl() {
                    let all = event.changes.iter().map(|change| (hctl.to_owned(), *change));
                    self.said.extend(all);
                }
            }
            Err(error) => {
                log::debug!("uevents: {error}; looking at everything");
                self.lost = true;
                // ENOBUFS: what was told meanwhile is lost; more is to come.
                self.failed = error.raw_os_error() != Some(libc::ENOBUFS);
            }
        }
        !self.failed
    }
}

#[cfg(test)]
mod tests;
