//! What a burst of messages comes to, and a socket that runs over.

use super::*;

const DISK: &str = "/devices/platform/host1/target1:0:0/1:0:0:0";

fn message(lines: &[&str]) -> Vec<u8> {
    lines.join("\0").into_bytes()
}

fn said(word: &str) -> Vec<u8> {
    message(&[&format!("change@{DISK}"), "SUBSYSTEM=scsi", &format!("SDEV_UA={word}")])
}

fn thread() -> (Thread, crate::control::mailbox::Mailbox) {
    let mailbox = crate::control::mailbox::Mailbox::new().unwrap();
    let thread = Thread {
        post: mailbox.sender(),
        disks: Disks::of_host(),
        socket: Err(io::ErrorKind::Unsupported.into()),
        buffer: Vec::new(),
        unheard: 1,
    };
    (thread, mailbox)
}

#[test]
fn what_an_lu_has_said_is_passed_on_word_by_word() {
    let mut heard = Heard::default();
    for word in [
        "CAPACITY_DATA_HAS_CHANGED",
        "CAPACITY_DATA_HAS_CHANGED",
        "ASYMMETRIC_ACCESS_STATE_CHANGED",
        "INQUIRY_DATA_HAS_CHANGED",
        "REPORTED_LUNS_DATA_HAS_CHANGED",
    ] {
        assert!(heard.take(Ok(Some(&said(word)))));
    }
    let resized = message(&[&format!("change@{DISK}/block/sdb"), "SUBSYSTEM=block", "RESIZE=1"]);
    assert!(heard.take(Ok(Some(&resized))));
    assert!(!heard.take(Ok(None)), "there is nothing more");
    assert!(!heard.lost && !heard.failed);
    let (mut thread, _mailbox) = thread();
    let news = thread.follow(heard);
    let all: Vec<SdevChange> = news
        .iter()
        .filter_map(|n| match n {
            DeviceNews::Said(hctl, change, _) if hctl == "1:0:0:0" => Some(*change),
            _ => None,
        })
        .collect();
    let expected = [
        SdevChange::Capacity,
        SdevChange::AccessState,
        SdevChange::InquiryData,
        SdevChange::ReportedLuns,
        SdevChange::Capacity,
    ];
    assert_eq!(all, expected, "a word that is repeated at once counts once");
}

/// Nobody knows what was lost: everything is looked at, and what is not there
/// has gone.
#[test]
fn after_events_were_lost_everything_is_looked_at_and_what_came_besides_counts() {
    let mut heard = Heard::default();
    assert!(heard.take(Ok(Some(&said("CAPACITY_DATA_HAS_CHANGED")))));
    let overrun = || Err(io::Error::from_raw_os_error(libc::ENOBUFS));
    assert!(heard.take(overrun()), "there is more to come");
    assert!(heard.take(Ok(Some(&said("INQUIRY_DATA_HAS_CHANGED")))));
    assert!(!heard.take(Ok(None)));
    assert!(heard.lost && !heard.failed);
    let (mut thread, _mailbox) = thread();
    let news = thread.follow(heard);
    let at = |wanted: &DeviceNews| news.iter().position(|n| n == wanted);
    let (looked, freed) = (at(&DeviceNews::Looked), at(&DeviceNews::Freed));
    assert!(looked.is_some() && freed.is_some(), "{news:?}");
    let said = news.iter().filter(|n| matches!(n, DeviceNews::Said(..))).count();
    assert_eq!(said, 2);
}

#[test]
fn a_socket_that_fails_is_left_alone_for_a_while() {
    let mut heard = Heard::default();
    assert!(!heard.take(Err(io::Error::from_raw_os_error(libc::ENOMEM))));
    assert!(heard.lost && heard.failed);
}
