//! `portguard detach`: removes what a killed or kept guard has left in force.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;

use crate::{
    base::failure::{Exit, Failure},
    bpf::{
        attach,
        pins::{Hook, Pins},
    },
    config,
    host::{interfaces, lock::InstanceLock, namespace, privileges},
};

/// Removes everything of the calling thread's network namespace: XDP first, because it must never
/// stand without egress, then egress, then the maps. Says on standard output what it has removed.
///
/// # Errors
/// When a daemon guards the namespace, which is named, or the folder is not to be trusted: exit
/// code 69. When a privilege is missing: 77. When something cannot be removed: 1.
pub async fn run(pin_dir: &Path) -> Result<(), Failure> {
    privileges::require()?;
    let namespace = namespace::name()?;
    let _lock = InstanceLock::take(&namespace).map_err(|failure| match failure.code {
        Exit::Unavailable => failure.remedy("stop it, and it detaches by itself"),
        _ => failure,
    })?;
    let layouts = layouts(pin_dir, &namespace)?;
    let _held = layouts.first().map(Pins::hold).transpose()?;
    let netlink = interfaces::connect()?;

    let mut removed = Removed::default();
    for &hook in Hook::ALL {
        let links = layouts.iter().flat_map(Pins::links);
        for (index, _, path) in links.filter(|link| link.1 == hook) {
            attach::release_pin(&path)?;
            removed.add(index, hook);
        }
    }
    for interface in interfaces::list(&netlink).await? {
        if !interface.xdp.is_empty() {
            // A guard with another --pin-dir may stand there, and must not lose its egress.
            if attach::has_filter(interface.index).context("list filters")? {
                tracing::warn!(
                    "{}: has an XDP program, so our filter there stays; if it is a guard's, name its --pin-dir",
                    interface.name
                );
            }
        } else if attach::has_filter(interface.index).context("list filters")? {
            attach::release_clsact(&interface.name)?;
            removed.add(interface.index, Hook::Egress);
        }
        removed.names.insert(interface.index, interface.name);
    }
    for pins in &layouts {
        pins.remove_all()?;
        removed.folders.push(pins.folder().display().to_string());
    }
    for folder in Pins::new(pin_dir, &namespace).remove_abandoned()? {
        removed.abandoned.push(folder.display().to_string());
    }

    writeln!(io::stdout(), "{removed}")
        .or_else(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error),
        })
        .map_err(|error| Failure::new(Exit::Runtime, error))
}

/// The folders of this namespace, of whatever layout, once they are known to be ours alone: what
/// others have put there is not ours to detach.
fn layouts(pin_dir: &Path, namespace: &str) -> Result<Vec<Pins>, Failure> {
    if !config::is_plain(pin_dir) {
        return Err(Failure::usage(format!(
            "{}: no absolute path, or one with `..`",
            pin_dir.display()
        ))
        .remedy("give --pin-dir the path that the guard was run with"));
    }

    let layouts = Pins::all(pin_dir, namespace);
    for pins in &layouts {
        pins.inspect()?;
    }

    Ok(layouts)
}

/// What has been removed.
#[derive(Default)]
struct Removed {
    hooks: BTreeMap<u32, Vec<Hook>>,
    names: BTreeMap<u32, String>,
    folders: Vec<String>,
    abandoned: Vec<String>,
}

impl Removed {
    /// All that records what is sent is one to the administrator.
    fn add(&mut self, interface: u32, hook: Hook) {
        let hooks = self.hooks.entry(interface).or_default();
        if !hooks.iter().any(|other| other.label() == hook.label()) {
            hooks.push(hook);
        }
    }
}

impl fmt::Display for Removed {
    /// One line for each interface and each folder.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        for (index, hooks) in &self.hooks {
            let name = match self.names.get(index) {
                Some(name) => name.clone(),
                None => format!("interface {index}, which is gone"),
            };
            let hooks: Vec<_> = hooks.iter().map(|hook| hook.label()).collect();
            lines.push(format!("detached {name} ({})", hooks.join(", ")));
        }
        for folder in &self.folders {
            lines.push(format!("removed the maps in {folder}"));
        }
        for folder in &self.abandoned {
            lines.push(format!(
                "removed {folder}, whose network namespace or interfaces are gone"
            ));
        }
        if lines.is_empty() {
            return f.write_str("nothing to detach");
        }

        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said() {
        let mut removed = Removed::default();
        assert_eq!(removed.to_string(), "nothing to detach");

        removed.hooks.insert(2, vec![Hook::Xdp, Hook::Egress]);
        removed.hooks.insert(7, vec![Hook::Egress]);
        removed.names.insert(2, "eth0".to_owned());
        removed.folders.push("/pins/v1".to_owned());
        removed.abandoned.push("/pins/netns-7".to_owned());
        assert_eq!(
            removed.to_string(),
            "detached eth0 (XDP, egress)\n\
             detached interface 7, which is gone (egress)\n\
             removed the maps in /pins/v1\n\
             removed /pins/netns-7, whose network namespace or interfaces are gone"
        );
    }
}
