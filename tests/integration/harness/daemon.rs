//! The real program as a process: `vhost-mpath` and `vhost-mpath ctl`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-mpath");
/// For what takes milliseconds, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nothing was waited for: less than any timeout that could have been, and
/// enough for a machine that has much else to do.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(2500);

/// A directory of its own, removed afterwards.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Scratch {
        let name = format!("vhost-mpath-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A file of zeroes.
    pub(crate) fn file(&self, name: &str, bytes: u64) -> String {
        File::create(self.path(name)).unwrap().set_len(bytes).unwrap();
        self.text(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the program to its end.
pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Output {
    Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[allow(clippy::disallowed_methods)] // a real process in real time
fn now() -> Instant {
    Instant::now()
}

/// Waits for something that takes a moment.
#[track_caller]
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A daemon that serves; killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    pub(crate) socket: PathBuf,
    pub(crate) control: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts one with its sockets in `scratch`.
    pub(crate) fn start(scratch: &Scratch, options: &[&str]) -> Daemon {
        let (socket, control) = (scratch.path("disk.sock"), scratch.path("disk.ctl"));
        let log = scratch.path("daemon.log");
        // A dead socket may lie there already: only another one is the daemon's.
        let inode = |socket: &PathBuf| fs::metadata(socket).ok().map(|m| m.ino());
        let before = inode(&socket);
        let child = Command::new(PROGRAM)
            .arg("--socket-path")
            .arg(&socket)
            .arg("--control")
            .arg(&control)
            .args(options)
            // Reservation keys are kept there.
            .env("STATE_DIRECTORY", scratch.path("state"))
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut daemon = Daemon { child, socket, control, log };
        until("the daemon listens", || {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended: {}", daemon.log());
            let now = inode(&daemon.socket);
            UnixStream::connect(&daemon.control).is_ok() && now.is_some() && now != before
        });
        daemon
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for the log to say so.
    #[track_caller]
    pub(crate) fn until_said(&self, what: &str) {
        until(&format!("{what:?} in the log:\n{}", self.log()), || self.log().contains(what));
    }

    /// `vhost-mpath ctl …`: whether it succeeded, and what it said.
    pub(crate) fn try_ctl(&self, verb: &str) -> (bool, String) {
        let output = Command::new(PROGRAM)
            .args(["ctl", "--control"])
            .arg(&self.control)
            .args(verb.split(' '))
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    /// As above; it must succeed.
    pub(crate) fn ctl(&self, verb: &str) -> String {
        let (good, said) = self.try_ctl(verb);
        assert!(good, "ctl {verb}: {said}\n{}", self.log());
        said
    }

    pub(crate) fn qmp(&self) -> Qmp {
        let mut qmp = self.raw_qmp();
        assert!(qmp.read()["QMP"].is_object());
        assert_eq!(qmp.ask("qmp_capabilities", &json!({})), json!({ "return": {} }));
        qmp
    }

    pub(crate) fn raw_qmp(&self) -> Qmp {
        let stream = UnixStream::connect(&self.control).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Qmp(BufReader::new(stream))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn terminate(&self) {
        // The shell's own `kill`: the program is in a package that small systems lack.
        let script = format!("kill -TERM {}", self.pid());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }

    /// Waits for its end: exit code and how long it took.
    pub(crate) fn wait(&mut self) -> (Option<i32>, Duration) {
        let start = now();
        let mut code = None;
        until("the daemon ends", || match self.child.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        });
        (code, start.elapsed())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A QMP client that hides nothing.
#[derive(Debug)]
pub(crate) struct Qmp(BufReader<UnixStream>);

impl Qmp {
    pub(crate) fn write(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The next message; null at the end.
    pub(crate) fn read(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }

    /// Asks, and skips events.
    pub(crate) fn ask(&mut self, command: &str, arguments: &Value) -> Value {
        self.write(&json!({ "execute": command, "arguments": arguments }).to_string());
        loop {
            let message = self.read();
            assert!(!message.is_null(), "the connection ended");
            if message["event"].is_null() {
                return message;
            }
        }
    }

    /// Waits for an event of that name.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        loop {
            let message = self.read();
            assert!(!message.is_null(), "the connection ended before {name}");
            if message["event"] == name {
                return message;
            }
        }
    }
}

/// `sim:` specs of two paths to one LU of 64 MiB.
pub(crate) fn two_paths(scratch: &Scratch) -> [String; 4] {
    let image = scratch.path("lu.img");
    let image = Path::display(&image);
    ["--path".into(), format!("sim:{image},size=64M"), "--path".into(), format!("sim:{image}")]
}
