//! `portguard harden`: narrows the port range of the kernel and reserves ports in it, so that it
//! stays so after a boot, and can be taken back.

mod file;
mod ports;
mod refusal;
#[cfg(test)]
mod tests;

use std::{
    fmt, fs,
    io::ErrorKind,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

pub use self::ports::PortList;
use self::{
    file::{
        RANGE_KEY, RESERVED_KEY, SavedSettings, contents, former, in_file, keep, read, refused,
        unknown,
    },
    ports::{PortUse, handed_out, list, runs, written},
    refusal::refusal,
};
use crate::{
    api::control::Client,
    base::failure::Failure,
    host::{
        range::{LOCAL_PORT_RANGE, LOCAL_RESERVED_PORTS, LocalPorts, PortBitmap, PortRange},
        sockets,
        sysctl_d::BootSettings,
    },
};

/// Where the settings are kept over a boot, unless the command line says otherwise.
pub const SYSCTL_FOLDER: &str = "/etc/sysctl.d";

/// Sorts behind `99-sysctl.conf`, by which Debian's systemd reads `/etc/sysctl.conf`.
const FILE: &str = "99-zz-portguard.conf";

/// How long a running guard may take to follow; it takes 300 ms.
const PATIENCE: Duration = Duration::from_secs(2);

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
