//! `portguard harden`: narrows the port range of the kernel and reserves ports in it, so that it
//! stays so after a boot, and can be taken back.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use guard_common::frame::transport::Transport;

use crate::{
    api::control::Client,
    base::failure::{Exit, Failure},
    host::{
        range::{
            LOCAL_PORT_RANGE, LOCAL_RESERVED_PORTS, LocalPorts, PortBitmap, PortRange, parse_range,
            parse_reserved,
        },
        sockets::{self, HostSocket, SocketState},
        sysctl_d::BootSettings,
    },
};

/// Where the settings are kept over a boot, unless the command line says otherwise.
pub const SYSCTL_FOLDER: &str = "/etc/sysctl.d";

/// Sorts behind `99-sysctl.conf`, by which Debian's systemd reads `/etc/sysctl.conf`.
const FILE: &str = "99-zz-portguard.conf";

const RANGE_KEY: &str = "net.ipv4.ip_local_port_range";
const RESERVED_KEY: &str = "net.ipv4.ip_local_reserved_ports";
/// Stands before a line of the file that says what was in force before.
const FORMER: &str = "# former ";

/// How long a running guard may take to follow; it takes 300 ms.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sockets that are named in one refusal.
const MOST_NAMED: usize = 5;

/// Ports and ranges with commas between, as in `8080,9000-9010`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortList(pub Vec<PortRange>);

impl FromStr for PortList {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let ports = parse_reserved(text)
            .with_context(|| format!("{text:?} is no list of ports; write 8080,9000-9010"))?;
        ensure!(!ports.is_empty(), "no port is named; write 8080,9000-9010");

        Ok(Self(ports))
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Harden {
    /// The new range.
    pub range: PortRange,
    /// Ports that the kernel shall not hand out, beside those that are reserved already.
    pub reserve: Vec<PortRange>,
    /// Whether to say only what would be done.
    pub dry_run: bool,
    /// Whether sockets that fall out are no reason to refuse.
    pub force: bool,
}

/// Where the settings are kept, and the guard that has to follow them.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// Folder of sysctl.d(5).
    pub folder: &'a Path,
    /// Socket of the running guard, if there is one.
    pub control: &'a Path,
}

/// Puts `harden` in force, now and for the next boot, and prints what it has done. Blocks: call it
/// outside a runtime.
///
/// # Errors
/// Exit code 78 when live sockets forbid it, 77 when a privilege is missing, else 1. Nothing is
/// changed then.
pub fn harden(harden: &Harden, places: Places<'_>) -> Result<(), Failure> {
    let now = LocalPorts::read(None)?;
    let change = Change::new(now, harden);
    println!("{change}");
    let file = places.folder.join(FILE);
    let former = match read(&file)? {
        Some(text) => former(&text).with_context(|| unknown(&file))?,
        None => change.from.clone(),
    };
    let text = contents(&former, &change.to);
    let refused = refusal(&change, &sockets::list()?);
    if harden.dry_run {
        println!("would write {}:\n{}", file.display(), text.trim_end());
        return match refused {
            Some(failure) if !harden.force => Err(failure),
            _ => Ok(()),
        };
    }
    if let Some(failure) = refused
        && !harden.force
    {
        return Err(failure);
    }

    let kept = keep(&file, &text)?;
    if let Err(failure) = put_in_force(&change.from, &change.to) {
        kept.undo(&file);
        return Err(failure);
    }
    match kept {
        SavedSettings::New | SavedSettings::Replaced(_) => {
            println!("written to {}", file.display());
            if places.folder == Path::new(SYSCTL_FOLDER) {
                overridden(&change.to)?;
            }
        }
        SavedSettings::ReadOnly(cause) => println!(
            "{}: cannot be written ({cause}), so the next boot sets the former values; put this \
             into the image of the system:\n{}",
            file.display(),
            text.trim_end()
        ),
    }
    println!("{}", followed(change.to.range, places.control));

    Ok(())
}

/// Puts back what was in force before [`harden`], and removes its file.
///
/// # Errors
/// Exit code 1 when there is no such file, or somebody has changed the settings since, unless
/// `force` is set; 77 when a privilege is missing.
pub fn revert(places: Places<'_>, force: bool) -> Result<(), Failure> {
    let file = places.folder.join(FILE);
    let Some(text) = read(&file)? else {
        return Err(Failure::runtime(format!(
            "{}: is not there, so nothing can be taken back",
            file.display()
        ))
        .remedy("portguard harden --range FIRST-LAST writes it"));
    };
    let before = former(&text).with_context(|| unknown(&file))?;
    let hardened = in_file(&text).with_context(|| unknown(&file))?;
    let now = LocalPorts::read(None)?;
    if now != hardened && !force {
        return Err(Failure::runtime(format!(
            "the kernel has {}, and not {} that was set: another program has changed it since",
            PortUse(&now),
            PortUse(&hardened)
        ))
        .remedy("--force puts the former values in force all the same"));
    }

    put_in_force(&now, &before)?;
    fs::remove_file(&file).map_err(|error| refused(&file, "removed", error))?;
    println!("{} -> {}", PortUse(&now), PortUse(&before));
    println!("removed {}", file.display());
    println!("{}", followed(before.range, places.control));

    Ok(())
}

/// From what is in force to what shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    from: LocalPorts,
    to: LocalPorts,
}

impl Change {
    fn new(from: LocalPorts, harden: &Harden) -> Self {
        let mut reserved = PortBitmap::default();
        for &ports in from.reserved.iter().chain(&harden.reserve) {
            reserved.insert(ports);
        }
        let to = LocalPorts {
            range: harden.range,
            reserved: runs(&reserved),
        };

        Self { from, to }
    }
}

impl fmt::Display for Change {
    /// Such as `ports 32768-60999 -> 40000-45000, reserved none -> 41000`, with their numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} -> {} ({} -> {} ports)",
            PortUse(&self.from),
            PortUse(&self.to),
            handed_out(&self.from).count(),
            handed_out(&self.to).count()
        )
    }
}

/// Such as `32768-60999 (reserved: 40000)`.
struct PortUse<'a>(&'a LocalPorts);

impl fmt::Display for PortUse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.range)?;
        if !self.0.reserved.is_empty() {
            write!(f, " (reserved: {})", list(&self.0.reserved))?;
        }

        Ok(())
    }
}

/// The ports that the kernel hands out, which are those that a guard without exposed ports guards.
fn handed_out(local: &LocalPorts) -> PortBitmap {
    let mut ports = PortBitmap::default();
    ports.insert(local.range);
    for &reserved in &local.reserved {
        ports.remove(reserved);
    }

    ports
}

/// The ranges that a set of ports is made of, in order.
fn runs(ports: &PortBitmap) -> Vec<PortRange> {
    let mut runs = Vec::new();
    let mut first = None;
    for port in 1..=u16::MAX {
        first = match (first, ports.contains(port)) {
            (None, true) => Some(port),
            (Some(first), false) => {
                runs.extend(PortRange::new(first, port - 1));
                None
            }
            (first, _) => first,
        };
    }
    if let Some(first) = first {
        runs.extend(PortRange::new(first, u16::MAX));
    }

    runs
}

/// Ports and ranges with commas between, as the kernel takes them.
fn list(ports: &[PortRange]) -> String {
    let ports: Vec<_> = ports
        .iter()
        .map(|ports| match (ports.first(), ports.last()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        })
        .collect();

    ports.join(",")
}

/// Why the change must not be made while these sockets live, if it must not.
fn refusal(change: &Change, sockets: &[HostSocket]) -> Option<Failure> {
    let (before, after) = (handed_out(&change.from), handed_out(&change.to));
    let used: BTreeSet<_> = sockets
        .iter()
        .map(|socket| socket.local.port())
        .filter(|port| before.contains(*port))
        .collect();
    let left = after.count() as usize;
    if left <= used.len() {
        return Some(
            Failure::bad_configuration(format!(
                "{left} ports are left for the kernel to hand out, and {} are in use: this host could \
                 open no connection any more",
                used.len()
            ))
            .remedy("choose a larger range, reserve fewer ports, or add --force"),
        );
    }
    let mut found = Vec::new();
    for socket in sockets.iter().filter(|socket| concerned(socket)) {
        let port = socket.local.port();
        let what = Described(socket);
        match (before.contains(port), after.contains(port)) {
            (true, false) => found.push(format!("{what} would no longer be guarded")),
            (false, true) if socket.waits() => {
                found.push(format!("others could not reach {what}"));
            }
            _ => {}
        }
    }
    if found.is_empty() {
        return None;
    }

    let more = found.len().saturating_sub(MOST_NAMED);
    found.truncate(MOST_NAMED);
    let mut text = found.join(", ");
    if more > 0 {
        text.push_str(&format!(", and {more} more"));
    }
    Some(Failure::bad_configuration(text).remedy(
        "stop what uses these ports, choose another range, or add --force: sockets that are open \
         go on, unguarded until they are closed",
    ))
}

/// Whether somebody on another host could meet the socket.
fn concerned(socket: &HostSocket) -> bool {
    socket.local.port() != 0
        && socket.state != SocketState::TimeWait
        && !socket.local.ip().is_loopback()
        && !(socket.connected() && socket.remote.ip() == socket.local.ip())
}

struct Described<'a>(&'a HostSocket);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.0.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::UdpLite => "udplite",
        };
        let local = self.0.local;
        if self.0.connected() {
            write!(f, "{protocol} {local} to {}", self.0.remote)
        } else if self.0.transport == Transport::Tcp {
            write!(f, "{protocol} port {} (listens)", local.port())
        } else {
            write!(f, "{protocol} port {}", local.port())
        }
    }
}

/// The text of the file.
fn contents(former: &LocalPorts, next: &LocalPorts) -> String {
    format!(
        "# Written by `portguard harden`. `portguard harden --revert` puts the former values back \
         and removes this file.\n\
         {FORMER}{RANGE_KEY} = {}\n\
         {FORMER}{RESERVED_KEY} = {}\n\
         {RANGE_KEY} = {}\n\
         {RESERVED_KEY} = {}\n",
        written(former.range),
        list(&former.reserved),
        written(next.range),
        list(&next.reserved)
    )
}

/// A range as the kernel takes it.
fn written(range: PortRange) -> String {
    format!("{} {}", range.first(), range.last())
}

/// What the text of the file says was in force before.
fn former(text: &str) -> anyhow::Result<LocalPorts> {
    ports_in(text.lines().filter_map(|line| line.strip_prefix(FORMER)))
}

/// What the text of the file sets.
fn in_file(text: &str) -> anyhow::Result<LocalPorts> {
    ports_in(text.lines().filter(|line| !line.starts_with('#')))
}

fn ports_in<'a>(lines: impl Iterator<Item = &'a str>) -> anyhow::Result<LocalPorts> {
    let (mut range, mut reserved) = (None, None);
    for line in lines {
        match line.split_once('=').map(|(key, value)| (key.trim(), value)) {
            Some((RANGE_KEY, value)) => range = Some(parse_range(value)?),
            Some((RESERVED_KEY, value)) => reserved = Some(parse_reserved(value)?),
            _ => {}
        }
    }
    let (Some(range), Some(reserved)) = (range, reserved) else {
        bail!("{RANGE_KEY} or {RESERVED_KEY} is missing");
    };

    Ok(LocalPorts { range, reserved })
}

fn unknown(file: &Path) -> String {
    format!(
        "{}: is not as portguard has written it; remove it once the sysctls are as they should be",
        file.display()
    )
}

/// The text of a file, or `None` where it is missing.
fn read(file: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused(file, "read", error)),
    }
}

/// What became of the file.
enum SavedSettings {
    New,
    /// There was one with this text.
    Replaced(String),
    ReadOnly(std::io::Error),
}

impl SavedSettings {
    /// Leaves the file as it was before, because the settings could not be put in force.
    fn undo(self, file: &Path) {
        let undone = match self {
            Self::New => fs::remove_file(file),
            Self::Replaced(text) => replace(file, &text),
            Self::ReadOnly(_) => Ok(()),
        };
        if let Err(error) = undone {
            tracing::warn!(
                "{}: cannot be put back as it was ({error}); remove it before the next boot",
                file.display()
            );
        }
    }
}

fn keep(file: &Path, text: &str) -> Result<SavedSettings, Failure> {
    let before = read(file)?;
    match replace(file, text) {
        Ok(()) => Ok(before.map_or(SavedSettings::New, SavedSettings::Replaced)),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound
            ) =>
        {
            Ok(SavedSettings::ReadOnly(error))
        }
        Err(error) => Err(refused(file, "written", error)),
    }
}

/// Writes a file in one step, so that a boot reads the old or the new one.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    // Ends otherwise than what sysctl.d(5) reads.
    name.push(".new");
    let aside = PathBuf::from(name);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&aside)
        .and_then(|mut new| {
            new.write_all(text.as_bytes())?;
            new.sync_all()
        })
        .and_then(|()| fs::rename(&aside, file));
    if written.is_err() {
        // It is not there where it could not be created.
        let _ = fs::remove_file(&aside);
    }

    written
}

fn put_in_force(from: &LocalPorts, to: &LocalPorts) -> Result<(), Failure> {
    set(LOCAL_RESERVED_PORTS, &list(&to.reserved))?;
    if let Err(failure) = set(LOCAL_PORT_RANGE, &written(to.range)) {
        // A change that fails leaves the former values in force.
        set(LOCAL_RESERVED_PORTS, &list(&from.reserved))?;
        return Err(failure);
    }
    let now = LocalPorts::read(None)?;
    if now != *to {
        return Err(Failure::runtime(format!(
            "the kernel has {} after {} was set",
            PortUse(&now),
            PortUse(to)
        ))
        .remedy("look who else sets it"));
    }

    Ok(())
}

fn set(path: &str, value: &str) -> Result<(), Failure> {
    // An empty write changes nothing; a line end empties a list.
    fs::write(path, format!("{value}\n")).map_err(|error| {
        if error.kind() == ErrorKind::InvalidInput {
            Failure::runtime(format!("{path}: the kernel refuses {value:?}"))
                .remedy("the range must not begin below net.ipv4.ip_unprivileged_port_start")
        } else {
            refused(Path::new(path), "written", error)
        }
    })
}

fn refused(path: &Path, what: &str, error: std::io::Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::PermissionDenied => Exit::NotPermitted,
        _ => Exit::Runtime,
    };
    let error = anyhow::Error::new(error).context(format!("{}: cannot be {what}", path.display()));
    let failure = Failure::new(code, error);
    match code {
        Exit::NotPermitted => failure.remedy("run as root"),
        _ => failure,
    }
}

/// Says which file would set something else at the next boot.
fn overridden(wanted: &LocalPorts) -> Result<(), Failure> {
    let boot = BootSettings::read(Path::new("/"))?;
    let expected = [
        (RANGE_KEY, written(wanted.range)),
        (RESERVED_KEY, list(&wanted.reserved)),
    ];
    for (key, value) in expected {
        if let Some(setting) = boot.value(key)
            && setting
                .value
                .split_ascii_whitespace()
                .ne(value.split_ascii_whitespace())
        {
            println!(
                "warning: {}:{} sets {key} = {} at the next boot; take the line out",
                setting.file.display(),
                setting.line,
                setting.value
            );
        }
    }

    Ok(())
}

/// Whether the running guard has the range in force, in words.
fn followed(range: PortRange, control: &Path) -> String {
    let client = Client::new(control);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Ok(status) = client.status() else {
            return "no guard answers here; the next one takes this range".to_owned();
        };
        let in_force = (status.range.first, status.range.last);
        if in_force == (range.first(), range.last()) {
            return format!("the guard has {range} in force");
        }
        if Instant::now() >= deadline {
            return format!(
                "warning: the guard has {}-{} in force; was it started with --range?",
                in_force.0, in_force.1
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange::new(first, last).expect("a range")
    }

    fn local(first: u16, last: u16, reserved: &[(u16, u16)]) -> LocalPorts {
        LocalPorts {
            range: range(first, last),
            reserved: reserved.iter().map(|&(a, b)| range(a, b)).collect(),
        }
    }

    fn change(reserve: &[(u16, u16)]) -> Change {
        let harden = Harden {
            range: range(40_000, 45_000),
            reserve: reserve.iter().map(|&(a, b)| range(a, b)).collect(),
            dry_run: false,
            force: false,
        };
        Change::new(local(32_768, 60_999, &[(33_000, 33_000)]), &harden)
    }

    fn socket(transport: Transport, local: &str, remote: &str, state: SocketState) -> HostSocket {
        HostSocket {
            transport,
            local: local.parse().expect("an end"),
            remote: remote.parse().expect("an end"),
            state,
            device: 0,
            ipv6_only: false,
            inode: 1,
            uid: 0,
        }
    }

    #[test]
    fn reserved_ports_are_added_and_joined() {
        let change = change(&[(33_001, 33_010), (41_000, 41_000)]);
        assert_eq!(
            change.to,
            local(40_000, 45_000, &[(33_000, 33_010), (41_000, 41_000)])
        );
        assert_eq!(
            change.to_string(),
            "32768-60999 (reserved: 33000) -> 40000-45000 (reserved: 33000-33010,41000) \
             (28231 -> 5000 ports)"
        );
    }

    #[test]
    fn every_port_can_be_reserved() {
        let mut all = PortBitmap::default();
        all.insert(range(1, 65_535));
        assert_eq!(runs(&all), [range(1, 65_535)]);
    }

    #[test]
    fn a_range_without_a_port_to_hand_out_is_refused() {
        let none = change(&[(1, u16::MAX)]);
        let refused = refusal(&none, &[]).expect("is refused");
        assert!(
            refused.to_string().starts_with("0 ports are left"),
            "{refused}"
        );
        // 40001 alone is left.
        let one = change(&[(40_000, 40_000), (40_002, u16::MAX)]);
        assert!(refusal(&one, &[]).is_none());
        let state = SocketState::Established;
        let socket = socket(Transport::Tcp, "10.9.0.2:40001", "10.9.0.1:443", state);
        let refused = refusal(&one, &[socket]).expect("is refused");
        assert!(
            refused.to_string().contains(" and 1 are in use"),
            "{refused}"
        );
    }

    #[test]
    fn the_file_says_what_was_and_what_is() {
        let change = change(&[(41_000, 41_000)]);
        let text = contents(&change.from, &change.to);
        assert_eq!(former(&text).expect("former values"), change.from);
        assert_eq!(in_file(&text).expect("values"), change.to);
        let none = contents(&local(1, 2, &[]), &local(3, 4, &[]));
        assert_eq!(former(&none).expect("former values"), local(1, 2, &[]));
        assert!(former("net.ipv4.ip_local_port_range = 1 2").is_err());
    }

    #[test]
    fn sockets_that_fall_out_forbid_it() {
        use SocketState::{Close, Established, Listen, TimeWait};
        use Transport::{Tcp, Udp};
        // socket, whether it forbids the change
        let table = [
            (socket(Tcp, "0.0.0.0:50000", "0.0.0.0:0", Listen), true),
            (socket(Tcp, "[::]:50000", "[::]:0", Listen), true),
            (
                socket(Tcp, "10.9.0.2:50000", "10.9.0.1:443", Established),
                true,
            ),
            (socket(Udp, "0.0.0.0:50000", "0.0.0.0:0", Close), true),
            // In force before and after.
            (socket(Tcp, "0.0.0.0:42000", "0.0.0.0:0", Listen), false),
            (
                socket(Tcp, "10.9.0.2:42000", "10.9.0.1:443", Established),
                false,
            ),
            // Reserved from now on.
            (socket(Tcp, "0.0.0.0:41000", "0.0.0.0:0", Listen), true),
            // Reserved before, too.
            (socket(Tcp, "0.0.0.0:33000", "0.0.0.0:0", Listen), false),
            (socket(Tcp, "0.0.0.0:22", "0.0.0.0:0", Listen), false),
            (socket(Tcp, "127.0.0.1:50000", "0.0.0.0:0", Listen), false),
            (
                socket(Tcp, "10.9.0.2:50000", "10.9.0.1:443", TimeWait),
                false,
            ),
            (
                socket(Tcp, "10.9.0.2:50000", "10.9.0.2:22", Established),
                false,
            ),
        ];
        let change = change(&[(41_000, 41_000)]);
        for (socket, forbids) in table {
            assert_eq!(refusal(&change, &[socket]).is_some(), forbids, "{socket:?}");
        }
    }

    #[test]
    fn a_listener_that_a_moved_range_reaches_forbids_it() {
        let harden = Harden {
            range: range(20_000, 25_000),
            reserve: Vec::new(),
            dry_run: false,
            force: false,
        };
        let change = Change::new(local(32_768, 60_999, &[]), &harden);
        let listener = socket(
            Transport::Tcp,
            "0.0.0.0:22000",
            "0.0.0.0:0",
            SocketState::Listen,
        );
        let served = socket(
            Transport::Tcp,
            "10.9.0.2:22000",
            "10.9.0.1:5",
            SocketState::Established,
        );
        let failure = refusal(&change, &[listener]).expect("a refusal");
        assert_eq!(failure.code, Exit::BadConfiguration);
        assert!(
            failure.to_string().contains("tcp port 22000 (listens)"),
            "{failure}"
        );
        assert!(refusal(&change, &[served]).is_none());
    }

    #[test]
    fn many_sockets_are_counted() {
        let sockets: Vec<_> = (50_000..50_020)
            .map(|port| {
                socket(
                    Transport::Tcp,
                    &format!("0.0.0.0:{port}"),
                    "0.0.0.0:0",
                    SocketState::Listen,
                )
            })
            .collect();
        let failure = refusal(&change(&[]), &sockets).expect("a refusal");
        assert!(failure.to_string().contains("and 15 more"), "{failure}");
    }

    #[test]
    fn a_file_is_replaced_in_one_step() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        assert!(matches!(keep(&file, "a"), Ok(SavedSettings::New)));
        let Ok(kept @ SavedSettings::Replaced(_)) = keep(&file, "b") else {
            panic!("it was there");
        };
        kept.undo(&file);
        assert_eq!(fs::read_to_string(&file).expect("text"), "a");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn lists_of_ports() {
        for (text, expected) in [
            ("8080", Some(vec![range(8080, 8080)])),
            (
                "8080,9000-9010",
                Some(vec![range(8080, 8080), range(9000, 9010)]),
            ),
            ("", None),
            ("a", None),
            ("9-1", None),
        ] {
            let parsed = text.parse::<PortList>().ok().map(|list| list.0);
            assert_eq!(parsed, expected, "{text}");
        }
    }
}
