//! Network namespaces of this test's own, which disappear with everything in them.

mod topology;

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, ensure};

pub use topology::{Direct, Routed, TwoLinks, link};

/// Where `ip netns` keeps them.
const FOLDER: &str = "/run/netns";
/// What the names of all of them start with; the process that made one follows.
const PREFIX: &str = "portguard-test-";

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes a namespace with nothing but loopback, which is up, and no chatter of its own.
    pub fn new(label: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();

        SWEEP.call_once(remove_those_of_the_dead);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}-{label}", process::id());
        ip(&["netns", "add", &name])?;
        let path = Path::new(FOLDER).join(&name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => {
                delete(&name);
                return Err(error).with_context(|| format!("open {}", path.display()));
            }
        };

        let namespace = Self { name, file };
        namespace.ip("link set lo up")?;
        for family in ["all", "default"] {
            let ipv6 = format!("net/ipv6/conf/{family}");
            for (setting, value) in [
                ("accept_dad", "0"),
                ("accept_ra", "0"),
                ("router_solicitations", "0"),
                ("mldv1_unsolicited_report_interval", "1"),
                ("mldv2_unsolicited_report_interval", "1"),
            ] {
                namespace.sysctl(&format!("{ipv6}/{setting}"), value)?;
            }
        }
        Ok(namespace)
    }

    /// Its name for `ip -n`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does something on a thread inside. Sockets that are opened there stay there.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let fd = self.file.as_raw_fd();
        let inside = move || {
            // SAFETY: the file descriptor is a namespace, open as long as `self` lives. Only this
            // thread moves, and it ends with the closure.
            let moved = unsafe { libc::setns(fd, libc::CLONE_NEWNET) };
            assert_eq!(moved, 0, "setns: {}", io::Error::last_os_error());
            act()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// A program to be run inside. The file systems stay as they are, unlike under `ip netns
    /// exec`, which hides pinned maps.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={FOLDER}/{}", self.name))
            .arg("--")
            .arg(program.as_ref());
        command
    }

    /// Runs `ip` on the inside, with the words of `arguments`.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let mut words = vec!["-n", &self.name];
        words.extend(arguments.split_whitespace());
        ip(&words).map(drop)
    }

    /// Moves an interface of this test's own namespace here.
    pub fn take(&self, interface: &str) -> Result<()> {
        ip(&["link", "set", interface, "netns", &self.name]).map(drop)
    }

    /// Whether an interface is up, and the kernel has noticed.
    pub fn is_running(&self, interface: &str) -> Result<bool> {
        let words = ["-n", &self.name, "link", "show", "dev", interface];
        Ok(ip(&words)?.contains(" state UP "))
    }

    /// Writes a setting below `/proc/sys`.
    pub fn sysctl(&self, setting: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys").join(setting);
        self.run(|| fs::write(&path, value))
            .with_context(|| format!("write {value} to {}", path.display()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Anyone who still runs inside would keep it, and its interfaces, alive.
        kill_inhabitants(&self.name);
        delete(&self.name);
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("run ip")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim(),
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn kill_inhabitants(name: &str) {
    let pids = Command::new("ip").args(["netns", "pids", name]).output();
    let pids = pids.map(|output| output.stdout).unwrap_or_default();
    for pid in String::from_utf8_lossy(&pids).split_whitespace() {
        if let Ok(pid) = pid.parse::<libc::pid_t>()
            && pid.unsigned_abs() != process::id()
        {
            // SAFETY: no memory is involved; the process is one that this test started.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

fn delete(name: &str) {
    if let Err(error) = ip(&["netns", "del", name]) {
        eprintln!("the namespace {name} is left behind: {error:#}");
    }
}

/// Removes what tests left behind that were killed before they could: process ids come again, and
/// this process has made none yet.
fn remove_those_of_the_dead() {
    let own = process::id().to_string();

    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| pid == own || !Path::new("/proc").join(pid).exists()) {
            kill_inhabitants(&name);
            delete(&name);
        }
    }
}
