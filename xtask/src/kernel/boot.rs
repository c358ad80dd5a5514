//! One boot: QEMU from its start to its end, its console shown and kept.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cards::{self, Cards};
use super::fetch::Kernel;
use crate::{privilege, workspace};

/// An emulated processor takes tens of times as long as a real one.
const TIME_LIMIT: Duration = Duration::from_secs(40 * 60);

/// A panic ends QEMU at once, and with the serial line as console nothing is lost before it.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet loglevel=4 net.ifnames=0";

/// One thread for both processors: with one each, QEMU may run what a kernel has patched meanwhile.
/// Linux 5.10 patches its XDP dispatcher whenever a program comes or goes, and died of the
/// breakpoint it uses for that, once in fifteen runs of the upgrades under load.
const ACCELERATOR: &str = "tcg,thread=single";

/// Boots `kernel` on a machine with these network cards, and returns what it said until it powered
/// off.
pub fn run(kernel: &Kernel, initramfs: &Path, cards: &Cards) -> Result<String> {
    let mut qemu = launcher(kernel, cards)?;
    let mut guest = qemu
        .args(["-accel", ACCELERATOR, "-cpu", "max", "-m", "1024"])
        .args(["-smp", "2"])
        .args(["-nographic", "-no-reboot"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", COMMAND_LINE])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("qemu-system-x86_64 could not be started: install qemu-system-x86")?;
    let console = guest.stdout.take().context("qemu has no output")?;

    let outcome = watch(kernel, &lines(console));
    end(&mut guest)?;
    outcome
}

/// QEMU with its cards: as root, in a network namespace of its own, where it has any.
fn launcher(kernel: &Kernel, cards: &Cards) -> Result<Command> {
    const QEMU: &str = "qemu-system-x86_64";

    if cards.is_empty() {
        let mut qemu = Command::new(QEMU);
        qemu.args(["-nic", "none"]);
        return Ok(qemu);
    }
    let mut qemu = privilege::as_root::<&str>("unshare", &[])?;
    qemu.args(["--net", "--", "sh", "-c", cards::LAUNCH, "launch", QEMU])
        .args(cards.arguments(&cards::script(&kernel.folder)?));
    Ok(qemu)
}

fn watch(kernel: &Kernel, lines: &Receiver<String>) -> Result<String> {
    let log = kernel.folder.join("console.log");
    let mut file =
        File::create(&log).with_context(|| format!("{} could not be written", log.display()))?;
    let mut console = String::new();
    let deadline = Instant::now() + TIME_LIMIT;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                eprintln!("{} | {line}", kernel.release);
                writeln!(file, "{line}")
                    .with_context(|| format!("{} could not be written", log.display()))?;
                console += &line;
                console.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(console),
            Err(RecvTimeoutError::Timeout) => bail!(
                "Linux {} did not finish within {} minutes; its console is in {}",
                kernel.release,
                TIME_LIMIT.as_secs() / 60,
                workspace::shown(&log),
            ),
        }
    }
}

/// The lines of the console as they come, until it ends.
fn lines(console: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while console
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            if sender.send(plain(&String::from_utf8_lossy(&line))).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// The firmware clears the screen with escape sequences, which nobody wants in a log.
fn plain(line: &str) -> String {
    let mut rest = line.trim_end();
    let mut plain = String::new();
    while let Some((before, sequence)) = rest.split_once('\x1b') {
        plain += before;
        let end = sequence
            .find(|c: char| c.is_ascii_alphabetic())
            .map_or(sequence.len(), |at| at + 1);
        rest = &sequence[end..];
    }
    plain + rest
}

/// Ends QEMU if it has not ended by itself, so that none is left behind.
fn end(guest: &mut Child) -> Result<()> {
    if guest.try_wait().context("qemu is lost")?.is_none() {
        // The console is closed a moment before the process is gone, so this may come too late.
        let _ = guest.kill();
    }
    guest.wait().context("qemu is lost")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_left_out() {
        assert_eq!(plain("\x1b[2J\x1b[1;1Hboot\x1bc ok\r\n"), "boot ok");
        assert_eq!(plain("no sequence"), "no sequence");
        assert_eq!(plain("torn\x1b["), "torn");
    }
}
