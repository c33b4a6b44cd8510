//! Bad input as a new user meets it: each mistake gets a message that names
//! the thing, the cause and the next step, an exit code, and no backtrace.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vhost_mpath::sys::file;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::harness::daemon::{Daemon, Scratch, run, two_paths};

/// Runs the program with a socket that works and these options; returns what
/// it said.
#[track_caller]
fn refused(scratch: &Scratch, code: i32, options: &[&str]) -> String {
    let socket = scratch.text("unused.sock");
    let arguments = [&["--socket-path", &socket], options].concat();
    refused_as_is(code, &arguments)
}

#[track_caller]
fn refused_as_is(code: i32, arguments: &[&str]) -> String {
    let output = run(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in ["panicked", "RUST_BACKTRACE", "internal error", "Os {", "Error("] {
        assert!(!said.contains(word), "{arguments:?}: {said}");
    }
    said
}

#[track_caller]
fn mentions(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

#[test]
fn a_path_that_is_not_there_or_no_disk_is_named() {
    let scratch = Scratch::new("cli-missing");
    let missing = scratch.text("nowhere");
    mentions(&refused(&scratch, 1, &["--path", &missing]), &[&missing, "no such file"]);
    let dir = scratch.text(".");
    mentions(&refused(&scratch, 1, &["--path", &dir]), &[&dir, "is a directory"]);
    mentions(&refused(&scratch, 1, &["--path", "/dev/null"]), &["/dev/null", "block device"]);
    let odd = scratch.file("odd.img", 1000);
    mentions(&refused(&scratch, 1, &["--path", &odd]), &[&odd, "1000 bytes", "truncate"]);
    let sim = format!("sim:{missing}");
    mentions(&refused(&scratch, 1, &["--path", &sim]), &[&missing, "no such image", "size="]);
}

#[test]
fn a_path_that_may_not_be_read_is_told_with_what_is_needed() {
    let scratch = Scratch::new("cli-unreadable");
    let image = scratch.file("secret.img", 1 << 20);
    let locked = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    fs::set_permissions(&image, locked).unwrap();
    if fs::File::open(&image).is_ok() {
        return; // root may read everything
    }
    mentions(
        &refused(&scratch, 1, &["--path", &image]),
        &[&image, "permission denied", "read and write"],
    );
}

#[test]
fn paths_to_different_disks_are_told_apart_by_wwid() {
    let scratch = Scratch::new("cli-different");
    let (a, b) = (scratch.text("a.img"), scratch.text("b.img"));
    let (sim_a, sim_b) = (format!("sim:{a},size=1M"), format!("sim:{b},size=1M"));
    let said = refused(&scratch, 1, &["--path", &sim_a, "--path", &sim_b]);
    mentions(&said, &["sim1", "leads to another LU", "WWID"]);
    let (c, d) = (scratch.file("c.img", 1 << 20), scratch.file("d.img", 1 << 20));
    let said = refused(&scratch, 1, &["--path", &c, "--path", &d]);
    mentions(&said, &["d.img", "leads to another LU"]);
    mentions(
        &refused(&scratch, 1, &["--path", "null:1M", "--path", "null:2M"]),
        &["null1", "WWID"],
    );
}

#[test]
fn a_logical_unit_that_is_not_there_is_told_with_what_was_looked_at() {
    let scratch = Scratch::new("cli-wwid");
    let wwid = "36001405deadbeef00010000000000fff";
    let options = ["--wwid", "naa.6001405deadbeef00010000000000fff", "--wait-paths", "0.3"];
    let said = refused(&scratch, 1, &options);
    mentions(&said, &[wwid, "waiting for one", "no path to", "SCSI disk"]);
    let named = refused(&scratch, 1, &["--map", "no-such-map-of-this-host"]);
    mentions(&named, &["--map", "no-such-map-of-this-host", "bindings", "--wwid"]);
    let lun = format!("3:1,wwid={wwid}");
    let said = refused(&scratch, 1, &["--device", "scsi", "--lun", &lun, "--wait-paths", "0"]);
    mentions(&said, &["--lun 3:1", wwid]);
    let image = scratch.text("lu.img");
    let said = refused(&scratch, 1, &["--wwid", wwid, "--path", &format!("sim:{image},size=1M")]);
    mentions(&said, &["sim0 leads to 36525400", wwid, "asked for"]);
    for (options, word) in [
        (&["--wwid", "3a", "--map", "b"][..], "--map"),
        (&["--wwid", ""], "WWID"),
        (&["--discover", "on", "--path", "null:1M"], "yes, no"),
        (&["--device", "scsi", "--expose", "paths", "--wwid", wwid], "paths that are named"),
    ] {
        mentions(&refused(&scratch, 2, options), &[word]);
    }
}

#[test]
fn a_start_that_waits_for_a_path_ends_when_told_to() {
    let scratch = Scratch::new("cli-wait");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_vhost-mpath"))
        .args(["--socket-path", &scratch.text("s"), "--wwid", "36001405deadbeef00010000000000fff"])
        .args(["--wait-paths", "3600"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let waits = lines.find(|line| line.as_ref().unwrap().contains("waiting for one"));
    assert!(waits.is_some(), "it does not wait");
    let killed = Command::new("kill").arg(daemon.id().to_string()).status().unwrap();
    assert!(killed.success());
    let said: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(said.iter().any(|line| line.contains("stopped by a signal")), "{said:?}");
    assert_eq!(daemon.wait().unwrap().code(), Some(1));
}

#[test]
fn a_path_that_another_process_has_is_refused_at_once_with_its_id() {
    let scratch = Scratch::new("cli-locked");
    let image = scratch.file("locked.img", 1 << 20);
    let file = fs::File::options().read(true).write(true).open(&image).unwrap();
    file::lock_exclusive(file.as_fd()).unwrap();
    let own = format!("process {} ", std::process::id());
    mentions(&refused(&scratch, 1, &["--path", &image]), &[&image, "is locked", &own]);
}

/// What a killed daemon has left in the kernel keeps its files, which no process
/// shows any more; a descriptor in a socket's queue is kept so as well.
#[test]
fn a_start_waits_for_what_a_killed_predecessor_has_left_in_the_kernel() {
    const WHILE: Duration = Duration::from_millis(1200);
    let scratch = Scratch::new("cli-left-behind");
    let image = scratch.file("left.img", 1 << 20);
    let (here, there) = UnixStream::pair().unwrap();
    let file = fs::File::options().read(true).write(true).open(&image).unwrap();
    file::lock_exclusive(file.as_fd()).unwrap();
    here.send_with_fd(&[0][..], file.as_raw_fd()).unwrap();
    drop(file);
    let let_go = std::thread::spawn(move || {
        std::thread::sleep(WHILE);
        drop((here, there));
        now()
    });
    let daemon = Daemon::start(&scratch, &["--path", &image]);
    let (served, let_go) = (now(), let_go.join().unwrap());
    assert!(served > let_go, "it serves while commands of another are out");
    mentions(&daemon.log(), &[&image, "is locked", "no process that can be seen", "waiting"]);
}

#[allow(clippy::disallowed_methods)] // real processes in real time
fn now() -> Instant {
    Instant::now()
}

#[test]
fn a_name_is_given_once() {
    let scratch = Scratch::new("cli-twice");
    let image = scratch.text("lu.img");
    let (one, two) = (format!("sim:{image},size=1M,name=left"), format!("sim:{image},name=left"));
    let said = refused(&scratch, 1, &["--path", &one, "--path", &two]);
    mentions(&said, &["name=left", "another path has that name"]);
}

#[test]
fn a_live_socket_is_left_alone_and_a_dead_one_taken_over() {
    let scratch = Scratch::new("cli-socket");
    let paths = two_paths(&scratch);
    let paths = paths.each_ref().map(String::as_str);
    // What a killed daemon leaves behind.
    drop(UnixListener::bind(scratch.path("disk.sock")).unwrap());
    drop(UnixListener::bind(scratch.path("disk.ctl")).unwrap());
    let daemon = Daemon::start(&scratch, &paths);
    let (live, control) = (scratch.text("disk.sock"), scratch.text("disk.ctl"));
    let said = refused_as_is(1, &["--socket-path", &live, "--path", "null:1M"]);
    mentions(&said, &["--socket-path", &live, "another process is listening"]);
    let said = refused(&scratch, 1, &["--path", "null:1M", "--control", &control]);
    mentions(&said, &["--control", &control, "another process is listening"]);
    // The image is locked as well.
    let said = refused(&scratch, 1, &paths);
    mentions(&said, &["lu.img", "locked"]);
    let file = scratch.file("precious", 10);
    let said = refused_as_is(1, &["--socket-path", &file, "--path", "null:1M"]);
    mentions(&said, &[&file, "not a socket"]);
    assert!(fs::metadata(&file).is_ok_and(|meta| meta.len() == 10));
    assert!(daemon.ctl("show paths").contains("sim0"));
}

#[test]
fn a_socket_in_no_directory_is_named() {
    let scratch = Scratch::new("cli-nodir");
    let socket = scratch.text("no/such/dir.sock");
    let said = refused_as_is(1, &["--socket-path", &socket, "--path", "null:1M"]);
    mentions(&said, &["--socket-path", &socket, "directory does not exist"]);
    let long = scratch.text(&"x".repeat(120));
    let said = refused_as_is(1, &["--socket-path", &long, "--path", "null:1M"]);
    mentions(&said, &["107 bytes"]);
}

#[test]
fn a_wrong_command_line_is_exit_code_2_with_what_is_accepted() {
    let scratch = Scratch::new("cli-usage");
    let with_path = |option: &str| refused(&scratch, 2, &["--path", "null:1M", option]);
    mentions(&with_path("--device=tape"), &["scsi", "--device", "blk"]);
    mentions(&with_path("--no-path-retry=maybe"), &["maybe", "--no-path-retry", "queue"]);
    mentions(&with_path("--transport=bsg"), &["bsg", "--transport", "sg-io"]);
    mentions(&with_path("--checker-timeout=0"), &["0", "--checker-timeout", "seconds"]);
    mentions(&with_path("--fd=5"), &["--fd", "cannot be used with", "--socket-path"]);
    mentions(&with_path("--colour"), &["--colour"]);
    mentions(&refused(&scratch, 2, &["--path", "null:12X"]), &["--path", "12X", "K, M, G"]);
    mentions(&refused(&scratch, 2, &[]), &["--path"]);
    mentions(&refused_as_is(2, &["--path", "null:1M"]), &["--socket-path"]);
    mentions(&refused_as_is(2, &["ctl", "--control", "/x", "explode"]), &["explode"]);
}

#[test]
fn an_inherited_descriptor_must_be_a_socket() {
    let said = refused_as_is(1, &["--fd", "77", "--path", "null:1M"]);
    mentions(&said, &["--fd 77", "socket"]);
}

#[test]
fn ctl_without_a_daemon_names_the_socket_and_the_next_step() {
    let scratch = Scratch::new("cli-ctl");
    let control = scratch.text("nobody.ctl");
    let said = refused_as_is(1, &["ctl", "--control", &control, "show", "paths"]);
    mentions(&said, &[&control, "no daemon listens", "start one with"]);
    mentions(&refused_as_is(1, &["ctl", "show", "paths"]), &["--control"]);
    // Somebody who is no daemon.
    let listener = UnixListener::bind(&control).unwrap();
    let answering = std::thread::spawn(move || {
        use std::io::Write;
        listener.accept().unwrap().0.write_all(b"220 mail.example.org\r\n").unwrap();
    });
    let said = refused_as_is(1, &["ctl", "--control", &control, "show", "paths"]);
    mentions(&said, &[&control, "no vhost-mpath"]);
    answering.join().unwrap();
}

#[test]
fn capabilities_and_help_go_to_standard_output() {
    let output = run(&["--print-capabilities", "--socket-path", "/s", "--bogus"]);
    assert!(output.status.success());
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["type"], "block");
    let output = run(&["--help"]);
    assert!(output.status.success() && output.stderr.is_empty());
    let help = String::from_utf8(output.stdout).unwrap();
    mentions(&help, &["--path", "sim:FILE", "Examples:", "[default: queue]"]);
}

#[test]
fn output_that_nobody_reads_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vhost-mpath"))
        .arg("--help")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("internal error") && !said.contains("panicked"), "{said}");
}
