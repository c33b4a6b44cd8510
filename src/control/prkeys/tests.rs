use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use super::keeper::Keeper;
use super::*;
use crate::control::mailbox::{Mail, Mailbox};
use crate::io::MapSlot;
use crate::mpath::reservation::Remembered;
use crate::sys::poll::{self, Interest, PollFd};

const WWID: &str = "36001405deadbeef0001000000000000a";
const OTHER: &str = "36001405deadbeef0001000000000000b";

/// As `mpathpersist` and multipathd leave it.
const THEIRS: &str = "\
# Multipath persistent reservation keys, Version : 1.0
# NOTE: this file is automatically maintained by the multipathd program.
# Format:
# prkey wwid
#
0x00000000000000ab 36001405deadbeef0001000000000000b
#x0000000000000001 36001405deadbeef0001000000000000a
0X0000000000000123 36001405deadbeef0001000000000000c
";

/// A directory of its own, removed afterwards.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("prkeys-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn prkeys(&self, name: &str) -> Prkeys {
        Prkeys::new(Some(self.0.join(name)))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key(key: u64) -> Remembered {
    Remembered { key: Key(key), aptpl: false, all_tg_pt: false }
}

#[test]
fn a_file_of_multipath_tools_is_understood() {
    assert_eq!(find(THEIRS, OTHER), Ok(Some(key(0xab))));
    assert_eq!(find(THEIRS, WWID), Ok(None), "it was taken back");
    let aptpl = Remembered { aptpl: true, ..key(0x123) };
    assert_eq!(find(THEIRS, "36001405deadbeef0001000000000000c"), Ok(Some(aptpl)));
    assert_eq!(find(THEIRS, "wwid"), Ok(None), "a comment is none");
    assert_eq!(find("nonsense 3a\n", "3a"), Err("nonsense 3a".to_owned()));
    assert_eq!(find("0x0 3a\n", "3a"), Err("0x0 3a".to_owned()), "zero is no key");
}

#[test]
fn what_is_written_multipath_tools_find_and_the_rest_stays() {
    let text = replaced(THEIRS, WWID, Some(Remembered { aptpl: true, ..key(0x7) }));
    // `do_prkey` wants exactly so many digits, one blank, and the line's end.
    assert!(text.contains("\n0X0000000000000007 36001405deadbeef0001000000000000a\n"), "{text}");
    assert!(!text.contains("#x0000000000000001"), "{text}");
    let mut others = text.lines().filter(|line| !line.contains(WWID));
    assert!(others.all(|line| THEIRS.lines().any(|theirs| theirs == line)), "{text}");
    assert_eq!(text.lines().count(), THEIRS.lines().count());
    let without = replaced(&text, WWID, None);
    assert!(!without.contains(WWID), "{without}");
    assert_eq!(find(&without, OTHER), Ok(Some(key(0xab))));
}

#[test]
fn what_multipath_tools_have_no_word_for_is_in_a_comment_that_they_pass_over() {
    let all = Remembered { all_tg_pt: true, ..key(0xfeed) };
    let text = replaced("", WWID, Some(all));
    assert_eq!(find(&text, WWID), Ok(Some(all)));
    // A line that ends with ` WWID` is theirs, whatever it begins with.
    let ends = text.lines().filter(|line| line.ends_with(&format!(" {WWID}")));
    assert_eq!(ends.count(), 1, "{text}");
    let text = replaced(&text, WWID, Some(key(0xfeed)));
    assert_eq!(find(&text, WWID), Ok(Some(key(0xfeed))));
    assert!(!text.contains(ALL_TG_PT), "{text}");
}

#[test]
fn a_key_is_read_as_administrators_write_it() {
    assert_eq!(understand_key("0xabc"), Some((Key(0xabc), false)));
    assert_eq!(understand_key("ABC:aptpl"), Some((Key(0xabc), true)));
    for wrong in ["", "0x", "0", "0xg", "0x11112222333344445", "1:all", "+1"] {
        assert_eq!(understand_key(wrong), None, "{wrong}");
    }
}

#[test]
fn a_key_is_kept_in_a_directory_that_is_made_for_it_and_for_nobody_else_to_read() {
    let dir = Dir::new();
    let prkeys = dir.prkeys("state/vhost-mpath/prkeys");
    assert_eq!(prkeys.read(WWID).unwrap(), None);
    prkeys.write(WWID, Some(key(1))).unwrap();
    prkeys.write(OTHER, Some(key(2))).unwrap();
    prkeys.write(WWID, Some(key(3))).unwrap();
    assert_eq!(prkeys.read(WWID).unwrap(), Some(key(3)));
    prkeys.write(WWID, None).unwrap();
    assert_eq!(prkeys.read(WWID).unwrap(), None);
    assert_eq!(prkeys.read(OTHER).unwrap(), Some(key(2)));
    assert_eq!(fs::metadata(prkeys.file()).unwrap().permissions().mode() & 0o777, 0o600);
    let names = fs::read_dir(prkeys.file().parent().unwrap()).unwrap().count();
    assert_eq!(names, 1, "nothing is left beside it");
}

#[test]
fn a_link_stays_one_and_the_file_keeps_its_mode() {
    let dir = Dir::new();
    let real = dir.0.join("real");
    fs::write(&real, THEIRS).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, dir.0.join("link")).unwrap();
    dir.prkeys("link").write(WWID, Some(key(9))).unwrap();
    assert!(fs::symlink_metadata(dir.0.join("link")).unwrap().is_symlink());
    assert_eq!(find(&fs::read_to_string(&real).unwrap(), WWID), Ok(Some(key(9))));
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn writers_do_not_undo_each_other() {
    const EACH: u64 = 20;
    let dir = Dir::new();
    let prkeys = dir.prkeys("prkeys");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let prkeys = &prkeys;
            scope.spawn(move || {
                for n in 0..EACH {
                    prkeys.write(&format!("3{writer}"), Some(key(n + 1))).unwrap();
                }
            });
        }
    });
    for writer in 0..4 {
        assert_eq!(prkeys.read(&format!("3{writer}")).unwrap(), Some(key(EACH)));
    }
}

#[test]
fn a_default_that_cannot_be_read_is_no_reason_not_to_start() {
    let dir = Dir::new();
    let prkeys = dir.prkeys(".");
    assert!(matches!(prkeys.read(WWID), Err(PrkeysError::System { what: "read", .. })));
    assert_eq!(Prkeys { given: false, ..prkeys }.read(WWID).unwrap(), None);
}

#[test]
fn the_service_managers_directory_is_the_default() {
    let of = |directory: &str| default(Some(directory.into()));
    assert_eq!(of("/run/a:/run/b"), Path::new("/run/a/prkeys"));
    assert_eq!(of(""), Path::new("/var/lib/vhost-mpath/prkeys"));
    assert_eq!(default(None), Path::new("/var/lib/vhost-mpath/prkeys"));
}

/// What a keeper says.
struct Heard {
    mailbox: Mailbox,
    mail: VecDeque<(MapSlot, Mail)>,
}

impl Heard {
    fn next(&mut self) -> (MapSlot, u64, Result<(), String>) {
        loop {
            match self.mail.pop_front() {
                Some((map, Mail::Kept { number, result })) => return (map, number, result),
                Some(other) => panic!("{other:?}"),
                None => {
                    let mut fds = [PollFd::new(self.mailbox.as_fd(), Interest::READ)];
                    poll::wait(&mut fds, Some(Duration::from_secs(30))).unwrap();
                    self.mail.extend(self.mailbox.take());
                }
            }
        }
    }

    /// Number of the next note that is written.
    fn written(&mut self) -> u64 {
        loop {
            if let (_, number, Ok(())) = self.next() {
                return number;
            }
        }
    }
}

#[test]
fn the_keeper_says_when_it_is_written_and_goes_on_trying_when_it_is_not() {
    let dir = Dir::new();
    let mut heard = Heard { mailbox: Mailbox::new().unwrap(), mail: VecDeque::new() };
    // Where the directory should be there is a file.
    fs::write(dir.0.join("state"), "").unwrap();
    let prkeys = dir.prkeys("state/prkeys");
    let keeper = Keeper::start(prkeys.clone(), heard.mailbox.sender()).unwrap();
    let first = keeper.remember(MapSlot(3), WWID, Some(key(5)));
    let (map, number, result) = heard.next();
    assert_eq!((map, number), (MapSlot(3), first));
    assert!(result.unwrap_err().contains("state"));
    fs::remove_file(dir.0.join("state")).unwrap();
    assert_eq!(heard.written(), first);
    assert_eq!(prkeys.read(WWID).unwrap(), Some(key(5)));
    assert!(keeper.finish(Duration::from_secs(10)), "nothing is left to do");
    let second = keeper.remember(MapSlot(3), WWID, None);
    assert!(second > first);
    assert_eq!(heard.written(), second);
    assert_eq!(prkeys.read(WWID).unwrap(), None);
}

#[test]
fn the_end_waits_for_what_is_to_be_remembered_and_no_longer_than_it_says() {
    let dir = Dir::new();
    let mailbox = Mailbox::new().unwrap();
    let prkeys = dir.prkeys("prkeys");
    let keeper = Keeper::start(prkeys.clone(), mailbox.sender()).unwrap();
    for n in 1..=20 {
        keeper.remember(MapSlot(0), WWID, Some(key(n)));
    }
    assert!(keeper.finish(Duration::from_secs(60)));
    assert_eq!(prkeys.read(WWID).unwrap(), Some(key(20)), "and nobody was asked in between");
    // Another process does not let go of the file.
    let other = lock(&dir.0.join("prkeys")).unwrap();
    keeper.remember(MapSlot(0), WWID, Some(key(21)));
    assert!(!keeper.finish(Duration::from_millis(50)));
    drop(other);
    assert!(keeper.finish(Duration::from_secs(60)));
    assert_eq!(prkeys.read(WWID).unwrap(), Some(key(21)));
}
