//! The daemon under test: the real binary on simulated paths to one image, in
//! a directory of its own, told what to do over its control socket.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmm_sys_util::tempdir::TempDir;

use super::daemon::until;

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Bytes of the image.
    pub(crate) size: u64,
    pub(crate) block_size: u32,
    /// Paths to it: `sim0`, `sim1`, …
    pub(crate) paths: usize,
    /// The image is a plain file, without the simulated array.
    pub(crate) files: bool,
    /// Request queues.
    pub(crate) queues: u16,
    /// Serve vhost-user-scsi.
    pub(crate) scsi: bool,
    /// Further LUs of a SCSI device, each with as many paths and of the same
    /// size: address and name. Its paths are the name and `0`, `1`, …
    pub(crate) luns: Vec<(&'static str, &'static str)>,
    /// Options beside those.
    pub(crate) options: Vec<&'static str>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            size: 8 << 20,
            block_size: 512,
            paths: 2,
            files: false,
            queues: 1,
            scsi: false,
            luns: Vec::new(),
            options: Vec::new(),
        }
    }
}

impl Setup {
    /// A SCSI device whose LUN 0 of target 0 is the image.
    pub(crate) fn scsi() -> Setup {
        Setup { scsi: true, queues: 4, ..Setup::default() }
    }

    /// With a LU more, at `address`.
    pub(crate) fn lun(mut self, address: &'static str, name: &'static str) -> Setup {
        self.luns.push((address, name));
        self
    }

    /// With options more.
    pub(crate) fn with(mut self, options: &[&'static str]) -> Setup {
        self.options.extend(options);
        self
    }
}

/// What a cut does to commands under way.
pub(crate) const CUT_MODES: [&str; 3] = ["before", "status-lost", "half"];

/// A daemon and its directory. Killed when dropped.
pub(crate) struct Daemon {
    dir: TempDir,
    setup: Setup,
    process: Option<Child>,
    qmp: Option<Qmp>,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    /// Starts one and waits for it to answer on its control socket.
    pub(crate) fn start(setup: &Setup) -> Daemon {
        let dir = TempDir::new().expect("temporary directory");
        let log = Arc::default();
        let mut daemon = Daemon { dir, setup: setup.clone(), process: None, qmp: None, log };
        daemon.run();
        daemon
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-mpath"));
        command.arg("--socket-path").arg(self.socket()).arg("--control").arg(self.control());
        for path in 0..self.setup.paths {
            command.arg("--path").arg(self.spec(&self.image(), &format!("sim{path}")));
        }
        for (address, name) in &self.setup.luns {
            let mut lun = format!("--lun={address},alias={name}");
            for path in 0..self.setup.paths {
                let spec = self.spec(&self.file(&format!("{name}.img")), &format!("{name}{path}"));
                lun += &format!(",path={}", spec.replace(',', ",,"));
            }
            command.arg(lun);
        }
        if self.setup.scsi {
            command.args(["--device", "scsi"]);
        }
        command.arg("--num-queues").arg(self.setup.queues.to_string());
        // Reservation keys are kept there.
        command.env("STATE_DIRECTORY", self.file("state"));
        command.args(&self.setup.options);
        command
    }

    /// A path to an image.
    pub(crate) fn spec(&self, image: &Path, name: &str) -> String {
        let Setup { size, block_size, files, .. } = self.setup;
        if files {
            let file = File::options().create(true).append(true).open(image).expect("an image");
            file.set_len(size).expect("its size");
            return image.display().to_string();
        }
        format!("sim:{},size={size},bs={block_size},name={name}", image.display())
    }

    /// Runs the process (again) on the same image and sockets.
    pub(crate) fn run(&mut self) {
        assert!(self.process.is_none(), "one process at a time");
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let stderr = child.stderr.take().expect("piped");
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = log.lock().expect("log");
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.process = Some(child);
        self.qmp = Some(self.connect_control());
    }

    fn connect_control(&mut self) -> Qmp {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(stream) = UnixStream::connect(self.control()) {
                return Qmp::new(stream);
            }
            let ended = self.process.as_mut().and_then(|p| p.try_wait().expect("wait"));
            assert!(ended.is_none(), "the daemon ended with {ended:?}:\n{}", self.log());
            assert!(Instant::now() < until, "no control socket:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.as_path().join("blk.sock")
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.dir.as_path().join("control.sock")
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.file("disk.img")
    }

    /// A file in the daemon's directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.as_path().join(name)
    }

    /// What the daemon has said so far, over all its lives.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("log").clone()
    }

    /// Waits for it to have said so: its log comes by a pipe, its answers and
    /// events by another way.
    #[track_caller]
    pub(crate) fn until_said(&self, what: &str) {
        until(&format!("{what:?} in the log"), || self.log().contains(what));
    }

    /// The present process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("running").id()
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.process.as_mut().is_some_and(|p| p.try_wait().expect("wait").is_none())
    }

    /// SIGKILL, in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.qmp = None;
        if let Some(mut child) = self.process.take() {
            child.kill().expect("kill");
            child.wait().expect("wait");
        }
    }

    /// SIGTERM; how it ended, and after how long.
    pub(crate) fn terminate(&mut self) -> (ExitStatus, Duration) {
        let mut child = self.process.take().expect("running");
        let begun = Instant::now();
        signal(child.id(), "TERM");
        loop {
            if let Some(status) = child.try_wait().expect("wait") {
                self.qmp = None;
                return (status, begun.elapsed());
            }
            if begun.elapsed() > Duration::from_secs(40) {
                let _ = child.kill();
                panic!("no end 40 s after SIGTERM:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the process in good order and runs it again with other options.
    pub(crate) fn restart_with(&mut self, options: &[&'static str]) {
        let (status, _) = self.terminate();
        assert!(status.success(), "{status}:\n{}", self.log());
        self.setup.options = options.to_vec();
        self.run();
    }

    /// The control socket.
    pub(crate) fn qmp(&mut self) -> &mut Qmp {
        self.qmp.as_mut().expect("running")
    }

    fn fault(&mut self, path: usize, arguments: Value) {
        self.fault_of(&format!("sim{path}"), arguments);
    }

    /// Any fault of any path: `{"fault": …}`.
    pub(crate) fn fault_of(&mut self, path: &str, mut arguments: Value) {
        arguments["path"] = json!(path);
        self.qmp().execute("sim-fault", &arguments);
    }

    /// Pulls a path's cable.
    pub(crate) fn cut(&mut self, path: usize, mode: &str) {
        self.fault(path, json!({"fault": "cut", "mode": mode}));
    }

    /// Puts it back, or ends any other fault.
    pub(crate) fn plug(&mut self, path: usize) {
        self.fault(path, json!({"fault": "plug"}));
    }

    /// Has a path checked, and used again if it is well.
    pub(crate) fn reinstate(&mut self, path: usize) {
        let name = format!("sim{path}");
        self.qmp().execute("path-reinstate", &json!({"path": name}));
    }

    /// The path swallows everything.
    pub(crate) fn hang(&mut self, path: usize) {
        self.fault(path, json!({"fault": "hang"}));
    }

    /// Every command on the path takes so much longer.
    pub(crate) fn delay(&mut self, path: usize, milliseconds: u64) {
        self.fault(path, json!({"fault": "delay", "milliseconds": milliseconds}));
    }

    /// The next `count` commands on the path get this sense (`K/ASC/ASCQ`).
    pub(crate) fn sense(&mut self, path: usize, sense: &str, count: u32) {
        self.fault(path, json!({"fault": "sense", "sense": sense, "count": count}));
    }

    /// How many paths of all maps are in use.
    pub(crate) fn usable(&mut self) -> u64 {
        let status = self.qmp().execute("query-status", &json!({}));
        status["usable"].as_u64().expect("a number")
    }

    /// Waits for so many paths to be in use.
    pub(crate) fn until_usable(&mut self, count: u64) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.usable() != count {
            assert!(Instant::now() < until, "{} paths usable, not {count}", self.usable());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Cuts or plugs every path.
    pub(crate) fn cut_all(&mut self) {
        (0..self.setup.paths).for_each(|path| self.cut(path, "before"));
    }

    /// Plugs every path.
    pub(crate) fn plug_all(&mut self) {
        (0..self.setup.paths).for_each(|path| self.plug(path));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let ended = self.process.as_mut().map(|p| p.try_wait());
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the daemon, before it was killed: {ended:?}");
            std::thread::sleep(Duration::from_millis(50));
            eprintln!("--- the daemon said:\n{}---", self.log());
        }
    }
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u32, name: &str) {
    let script = format!("kill -{name} {pid}");
    let sent = Command::new("sh").arg("-c").arg(script).status().expect("sh");
    assert!(sent.success(), "kill -{name} {pid}");
}

/// A QMP client.
pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
    /// Events that came while waiting for something else.
    pub(crate) events: Vec<Value>,
}

impl Qmp {
    /// Takes the greeting and leaves negotiation mode.
    pub(crate) fn new(stream: UnixStream) -> Qmp {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        let mut qmp = Qmp { reader: BufReader::new(stream), events: Vec::new() };
        let greeting = qmp.next();
        assert!(greeting["QMP"].is_object(), "{greeting}");
        qmp.execute("qmp_capabilities", &json!({}));
        qmp
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("an answer within 20 s");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// The next event of that name, of those that came already too; others
    /// before it are dropped.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        loop {
            let event = if self.events.is_empty() { self.next() } else { self.events.remove(0) };
            if event["event"] == name {
                return event["data"].clone();
            }
        }
    }

    /// Runs a command; its error, if it has one.
    pub(crate) fn try_execute(&mut self, command: &str, arguments: &Value) -> Result<Value, Value> {
        let message = json!({"execute": command, "arguments": arguments});
        writeln!(self.reader.get_mut(), "{message}").expect("the control socket takes it");
        loop {
            let mut answer = self.next();
            if answer["event"].is_string() {
                self.events.push(answer);
            } else if answer["error"].is_object() {
                return Err(answer["error"].take());
            } else {
                return Ok(answer["return"].take());
            }
        }
    }

    /// Runs a command that must succeed.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        let answer = self.try_execute(command, arguments);
        answer.unwrap_or_else(|error| panic!("{command} {arguments}: {error}"))
    }
}

/// Files of a process, as `/proc` lists them.
pub(crate) fn open_files(pid: u32) -> usize {
    let dir = Path::new("/proc").join(pid.to_string()).join("fd");
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}
