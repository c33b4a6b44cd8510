//! The command line: options understood, checked and turned into settings.
//!
//! Follows QEMU's conventions for back-end programs (`vhost-user.rst`,
//! "Backend program conventions") and multipath.conf's words. Exit code 2 for
//! a wrong command line, 1 for everything else that fails.

mod device;
mod multipath;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{PathBuf, absolute};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};
use log::LevelFilter;

use crate::control::settings::{
    Access, Device, MAX_QUEUE_SIZE, MAX_QUEUES, MAX_SCSI_QUEUES, SCSI_QUEUES, check_alias,
    check_wwid, group_by_name,
};
use crate::control::{Listen, Settings, ctl, daemon, journal};
use crate::host::{Options, PathSpec, TransportChoice};
use crate::mpath::policy::keywords::Setting;
use crate::passthrough_scsi::HELPERS;

/// Request queues of a vhost-user-blk disk unless told otherwise.
const BLK_QUEUES: u16 = 16;

const ABOUT: &str = "\
Serves a SAN disk that has several paths to a virtual machine.

Joins the paths (/dev/sdX, /dev/sgN, /dev/bsg/H:C:T:L) that this host has to one SCSI logical \
unit into a map, and serves the map as a vhost-user-blk or vhost-user-scsi disk. Errors of a path never reach the \
guest while another path lives; what the logical unit itself says does.";

const EXAMPLES: &str = "\
Examples:
  # two paths to one logical unit
  vhost-mpath --socket-path /run/vm1-disk0.sock --path /dev/sdb --path /dev/sdc

  # the same, found by its WWID; a path that is deleted and found again joins by itself
  vhost-mpath --socket-path /run/vm1-disk0.sock --wwid 36001405deadbeef0001000000000000a

  # see a failover without a SAN: a simulated logical unit with two paths
  vhost-mpath --socket-path /tmp/disk.sock --control /tmp/disk.ctl \\
      --path sim:disk.img,size=1G --path sim:disk.img
  vhost-mpath ctl --control /tmp/disk.ctl sim sim0 cut
  vhost-mpath ctl --control /tmp/disk.ctl show topology

  # attach it to QEMU (the guest's memory must be shared)
  qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on \\
      -machine memory-backend=mem \\
      -chardev socket,id=disk0,path=/run/vm1-disk0.sock,reconnect-ms=1000 \\
      -device vhost-user-blk-pci,chardev=disk0

  # real SCSI for the guest, two disks (QEMU: -device vhost-user-scsi-pci,chardev=disk0)
  vhost-mpath --socket-path /run/vm1-scsi.sock --device scsi \\
      --lun 0:0,path=/dev/sdb,path=/dev/sdc --lun 0:1,path=/dev/sdd,path=/dev/sde

SIGTERM ends it: what the kernel has is awaited, the rest stays marked in flight for the next \
daemon. Exit code 0; 1 for an error; 2 for a wrong command line.";

const PATH_HELP: &str = "\
A path to the logical unit; give it once for each path.

/dev/sdX, /dev/sgN, /dev/bsg/H:C:T:L, /dev/disk/by-path/…: a SCSI disk.
FILE, or another block device: served too, without SCSI.
sim:FILE[,size=S][,bs=512|4096][,personality=A][,tpgs=T][,port=P][,tpg=G][,access=STATE]: a path to a simulated \
logical unit; twice is two paths. It goes through target port P (the first free one) of target port group G (1), which \
is put into STATE. A: generic; or rdac, clariion: one of two controllers (groups 1 and 2) owns the unit. T: none, \
implicit, explicit, both (generic's default; the others have none). A and T are settled by the first path.
null:SIZE: drops writes and reads zeroes, to measure the rest.
All take ,name=NAME; write a comma in a file name twice. Sizes take K, M, G, T.";

#[derive(Debug, Parser)]
#[command(
    name = "vhost-mpath",
    version,
    about = "Serves a SAN disk that has several paths to a virtual machine",
    long_about = ABOUT,
    after_long_help = EXAMPLES,
    override_usage = "vhost-mpath <--socket-path SOCKET | --fd FD> --path PATH [--path PATH]… [OPTIONS]\n       \
                      vhost-mpath <--socket-path SOCKET | --fd FD> --wwid WWID [OPTIONS]\n       \
                      vhost-mpath <--socket-path SOCKET | --fd FD> --device scsi --lun T:L,path=PATH[,path=PATH]… [--lun …]… [OPTIONS]\n       \
                      vhost-mpath ctl --control CONTROL <VERB>…",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    subcommand_help_heading = "Commands",
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at a running daemon and change its paths, in multipathd's words.
    #[command(long_about = ctl::ABOUT, after_long_help = ctl::EXAMPLES)]
    Ctl(ctl::Ctl),
}

#[derive(Debug, Args)]
struct Serve {
    /// Make a Unix socket here, for QEMU to connect to.
    ///
    /// A socket left behind by a dead process is replaced; one that somebody listens on is not.
    #[arg(long, value_name = "SOCKET", help_heading = "Front-end")]
    #[arg(required_unless_present_any = ["fd"], conflicts_with = "fd")]
    socket_path: Option<PathBuf>,

    /// Use this inherited file descriptor instead, a listening or a connected Unix socket.
    #[arg(long, value_name = "FD", help_heading = "Front-end")]
    #[arg(value_parser = clap::value_parser!(i32).range(3..))]
    fd: Option<i32>,

    /// File mode of the socket, in octal [default: by the umask]
    #[arg(long, value_name = "MODE", help_heading = "Front-end", value_parser = parse_mode)]
    #[arg(conflicts_with = "fd")]
    socket_mode: Option<u32>,

    /// Group of the socket, by name or number: QEMU's, such as kvm or libvirt-qemu.
    #[arg(long, value_name = "GROUP", help_heading = "Front-end", value_parser = parse_group)]
    #[arg(conflicts_with = "fd")]
    socket_group: Option<u32>,

    /// Kind of device to show to the guest.
    ///
    /// blk: a vhost-user-blk disk of one logical unit. scsi: a vhost-user-scsi host bus adapter
    /// with any number of them; the guest speaks SCSI to each.
    #[arg(long, value_name = "DEVICE", help_heading = "Disk", default_value = "blk")]
    #[arg(value_parser = PossibleValuesParser::new(["blk", "scsi"]))]
    device: String,

    /// Name of the map in logs, events and `show topology` [default: the WWID]
    #[arg(long, value_name = "NAME", help_heading = "Disk", value_parser = parse_alias)]
    alias: Option<String>,

    /// Request queues offered; QEMU wants one per virtual CPU unless told otherwise
    /// [default: 16 for blk, 64 for scsi]
    #[arg(long, value_name = "N", help_heading = "Disk")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_QUEUES)))]
    num_queues: Option<u16>,

    /// Largest ring accepted, in descriptors: a power of two.
    #[arg(long, value_name = "N", help_heading = "Disk", default_value_t = MAX_QUEUE_SIZE)]
    #[arg(value_parser = parse_queue_size)]
    queue_size: u16,

    /// Refuse writes.
    #[arg(long, help_heading = "Disk")]
    read_only: bool,

    /// Serial number shown to the guest, up to 20 characters [default: the LU's own]
    #[arg(long, value_name = "TEXT", help_heading = "Disk", value_parser = parse_serial)]
    serial: Option<String>,

    /// A path to the logical unit; give it once for each path.
    #[arg(long = "path", alias = "blk-file", value_name = "PATH", help_heading = "Paths")]
    #[arg(value_parser = parse_path, long_help = PATH_HELP)]
    paths: Vec<PathSpec>,

    /// Find the paths by the logical unit's WWID: 36001405…, naa.…, 0x…
    ///
    /// The disks of this host that have it are opened, and each proves it. `lsblk -o NAME,WWN`,
    /// `multipath -ll` and /dev/disk/by-id show it. With --path: those must lead there.
    #[arg(long, value_name = "WWID", help_heading = "Paths", value_parser = parse_wwid)]
    wwid: Option<String>,

    /// Find them by the name that multipath-tools has for the map
    ///
    /// Its WWID is looked up in multipath.conf (an alias in section multipaths) and in
    /// /etc/multipath/bindings. The map is called so here as well, unless --alias is given.
    #[arg(long, value_name = "NAME", help_heading = "Paths", value_parser = parse_alias)]
    #[arg(conflicts_with = "wwid")]
    map: Option<String>,

    /// Whether paths that are SCSI disks join and leave by themselves, yes or no.
    ///
    /// yes: a disk with the map's WWID joins as soon as the kernel has found it, whatever its
    /// name, and leaves when its device is deleted. no: by `ctl add path` and `ctl del path` only.
    #[arg(long, value_name = "WHETHER", help_heading = "Paths", default_value = "yes")]
    #[arg(value_parser = PossibleValuesParser::new(["yes", "no"]))]
    discover: String,

    /// With --wwid or --map: wait so long for the first path, in seconds.
    #[arg(long, value_name = "SECONDS", help_heading = "Paths", default_value = "10")]
    #[arg(value_parser = parse_wait)]
    wait_paths: Duration,

    #[command(flatten)]
    scsi: device::ScsiOptions,

    /// How reads and writes travel.
    ///
    /// auto: bsg-uring where the kernel can, else blk-uring, for SCSI guests sg-io. sg-io: every
    /// command with its full sense, a thread for each. bsg-uring: the same by io_uring on the
    /// disk's bsg node (Linux 7.1). blk-uring: reads and writes by io_uring on the block node.
    #[arg(long, value_name = "HOW", help_heading = "Paths", default_value = "auto")]
    #[arg(value_parser = transport_parser())]
    transport: TransportChoice,

    /// Most commands of one path at once by SG_IO, each with a thread of its own.
    #[arg(long, value_name = "N", help_heading = "Paths", default_value_t = HELPERS)]
    #[arg(value_parser = parse_threads)]
    sg_io_threads: usize,

    /// The kernel gives up on a command after this long, in seconds.
    #[arg(long, value_name = "SECONDS", help_heading = "Paths", default_value = "30")]
    #[arg(value_parser = parse_seconds)]
    command_timeout: Duration,

    /// A path whose command is out for longer gets no new ones until it was checked, in seconds.
    #[arg(long, value_name = "SECONDS", help_heading = "Paths", default_value = "1")]
    #[arg(value_parser = parse_seconds)]
    suspect_timeout: Duration,

    #[command(flatten)]
    multipath: multipath::MultipathOptions,

    /// Make a control socket here, for `vhost-mpath ctl` and QMP clients; for this user only.
    #[arg(long, value_name = "CONTROL", help_heading = "Administration")]
    control: Option<PathBuf>,

    /// What to log on standard error: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", help_heading = "Administration", default_value = "info")]
    #[arg(value_parser = level_parser())]
    log_level: LevelFilter,

    /// Print what this program can do, for QEMU and libvirt, and exit.
    #[arg(long, help_heading = "Administration")]
    print_capabilities: bool,
}

/// Runs the program.
pub fn main() -> ExitCode {
    journal::abort_on_panic();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if asks_for_capabilities(&arguments) {
        let words = arguments.iter().map(|argument| argument.to_string_lossy());
        return print_capabilities(device::capabilities(words));
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // Prints help to standard output, errors to standard error; 0 or 2.
        Err(error) => in_our_words(error).exit(),
    };
    match cli.command {
        Some(Command::Ctl(ctl)) => ctl::main(&ctl),
        None => serve(&cli.serve),
    }
}

/// The convention is that every other argument is ignored then, wrong ones too.
fn asks_for_capabilities(arguments: &[OsString]) -> bool {
    arguments.iter().skip(1).any(|argument| argument == "--print-capabilities")
}

fn print_capabilities(capabilities: &str) -> ExitCode {
    // Not `println!`, which panics where nobody reads.
    match writeln!(io::stdout(), "{capabilities}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A word that belongs to no option is taken for a subcommand, and what clap
/// says about that helps nobody who has left out a `--path`.
fn in_our_words(error: clap::Error) -> clap::Error {
    match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::ArgumentConflict, Some(ContextValue::String(word))) if word != "ctl" => {
            wrong(&format!(
                "'{word}' belongs to no option; each path wants its own --path: --path {word}"
            ))
        }
        (ErrorKind::ArgumentConflict, Some(_)) => wrong(
            "`ctl` speaks to a daemon that runs already and takes none of the options that start \
             one: vhost-mpath ctl --control CONTROL VERB",
        ),
        _ => error,
    }
}

fn serve(serve: &Serve) -> ExitCode {
    journal::init(serve.log_level);
    let result = match serve.settings() {
        Ok(settings) => daemon::run(&settings),
        Err(error) => error.exit(),
    };
    result.unwrap_or_else(|error| {
        log::error!("{error}");
        ExitCode::FAILURE
    })
}

impl Serve {
    fn settings(&self) -> Result<Settings, clap::Error> {
        let listen = match (&self.socket_path, self.fd) {
            (Some(path), _) => Listen::Path(path.clone()),
            (None, Some(fd)) => Listen::Fd(fd),
            (None, None) => return Err(wrong("--socket-path or --fd is missing")),
        };
        if self.suspect_timeout > self.command_timeout {
            return Err(wrong(
                "--suspect-timeout must not be longer than --command-timeout: a command that the \
                 kernel has given up on is not out any more",
            ));
        }
        let disk = device::Disk {
            paths: &self.paths,
            wwid: self.wwid.as_deref(),
            map: self.map.as_deref(),
            discover: self.discover == "yes",
            alias: self.alias.as_deref(),
            serial: self.serial.as_deref(),
            read_only: self.read_only,
            control: self.control.is_some(),
        };
        let (device, lus) = self.scsi.device(&self.device, &disk).map_err(|text| wrong(&text))?;
        let policy = self.multipath.policy().map_err(|error| wrong(&format!("--set {error}")))?;
        for lu in &lus {
            let checked = Setting::apply_all(&lu.set, &policy);
            checked.map_err(|error| wrong(&format!("--lun {}: {error}", lu.address)))?;
        }
        let transport = self.transport_for(&device)?;
        let num_queues = self.queues_for(&device)?;
        // `std::path::absolute` makes `./s` and `s` equal.
        let place = |path: &Option<PathBuf>| path.as_deref().and_then(|p| absolute(p).ok());
        if self.control.is_some() && place(&self.control) == place(&self.socket_path) {
            return Err(wrong("--control and --socket-path must be two different sockets"));
        }
        Ok(Settings {
            listen,
            access: Access { mode: self.socket_mode, group: self.socket_group },
            control: self.control.clone(),
            open: Options {
                transport,
                command_timeout: self.command_timeout,
                scsi_only: matches!(device, Device::Scsi(_)),
                helpers: self.sg_io_threads,
                ..Options::default()
            },
            prkeys: self.scsi.prkeys(&device),
            device,
            lus,
            wait_paths: self.wait_paths,
            discover: self.discover == "yes",
            read_only: self.read_only,
            num_queues,
            queue_size: self.queue_size,
            policy,
            suspect_after: self.suspect_timeout,
        })
    }
}

impl Serve {
    /// A guest's own CDBs go by SCSI passthrough, which alone returns all the
    /// logical unit says.
    fn transport_for(&self, device: &Device) -> Result<TransportChoice, clap::Error> {
        match (device, self.transport) {
            (Device::Blk { .. }, choice) => Ok(choice),
            (Device::Scsi(_), TransportChoice::BlkUring) => Err(wrong(
                "--transport blk-uring carries reads and writes only; with --device scsi leave it \
                 at auto",
            )),
            (Device::Scsi(_), choice) => Ok(choice),
        }
    }

    fn queues_for(&self, device: &Device) -> Result<u16, clap::Error> {
        match (device, self.num_queues) {
            (Device::Blk { .. }, given) => Ok(given.unwrap_or(BLK_QUEUES)),
            (Device::Scsi(_), Some(given)) if given > MAX_SCSI_QUEUES => Err(wrong(&format!(
                "--num-queues {given}: a SCSI device has at most {MAX_SCSI_QUEUES}; two rings are \
                 for control and events"
            ))),
            (Device::Scsi(_), given) => Ok(given.unwrap_or(SCSI_QUEUES)),
        }
    }
}

fn wrong(text: &str) -> clap::Error {
    Cli::command().error(ErrorKind::ValueValidation, text)
}

// --- values --------------------------------------------------------------------

fn parse_path(text: &str) -> Result<PathSpec, String> {
    text.parse().map_err(|error: crate::host::SpecError| error.to_string())
}

/// Seconds, with a fraction if need be.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    const RANGE: std::ops::RangeInclusive<f64> = 0.1..=86_400.0;
    let seconds: f64 = text.parse().map_err(|_| "it is not a number of seconds".to_owned())?;
    if !RANGE.contains(&seconds) {
        return Err("give seconds from 0.1 to 86400 (a day)".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Seconds, or none.
fn parse_wait(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { parse_seconds(text) }
}

fn parse_wwid(text: &str) -> Result<String, String> {
    if !check_wwid(text) {
        return Err("give a WWID, such as 36001405deadbeef0001000000000000a".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "give an octal file mode from 0 to 777, such as 660".to_owned())
}

fn parse_group(text: &str) -> Result<u32, String> {
    text.parse().ok().or_else(|| group_by_name(text)).ok_or_else(|| {
        "there is no such group; `getent group` lists the groups of this host".to_owned()
    })
}

fn parse_alias(text: &str) -> Result<String, String> {
    if !check_alias(text) {
        return Err("use letters, digits and any of _.:- (at most 127)".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_serial(text: &str) -> Result<String, String> {
    let printable = |c: char| c.is_ascii_graphic() || c == ' ';
    if text.is_empty() || text.len() > 20 || !text.chars().all(printable) {
        return Err("give 1 to 20 printable ASCII characters".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_queue_size(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|size: &u16| size.is_power_of_two() && (4..=MAX_QUEUE_SIZE).contains(size))
        .ok_or_else(|| format!("give a power of two from 4 to {MAX_QUEUE_SIZE}"))
}

fn parse_threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=256).contains(number));
    number.ok_or_else(|| "give a number from 1 to 256".to_owned())
}

fn transport_parser() -> impl TypedValueParser<Value = TransportChoice> {
    let known = PossibleValuesParser::new(["auto", "sg-io", "bsg-uring", "blk-uring"]);
    known.map(|text| match text.as_str() {
        "sg-io" => TransportChoice::SgIo,
        "bsg-uring" => TransportChoice::BsgUring,
        "blk-uring" => TransportChoice::BlkUring,
        _ => TransportChoice::Auto,
    })
}

fn level_parser() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"])
        .map(|text| text.parse().unwrap_or(LevelFilter::Info))
}

#[cfg(test)]
mod tests;
